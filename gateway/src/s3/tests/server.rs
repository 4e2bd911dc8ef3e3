//! A server that answers each request as a script says, well or badly: it can cut a body, lose an
//! answer, hang, or say what no store would. Plain HTTP/1.1 by hand, so that nothing between it
//! and the store is too polite to be wrong.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct SeenRequest {
    pub(super) method: String,
    /// Path and query, as in the request line.
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl SeenRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub(super) struct ScriptedAnswer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    end: AnswerEnd,
    /// The answer waits for this.
    gate: Option<Arc<Semaphore>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AnswerEnd {
    Whole,
    /// The body ends after so many bytes with the connection.
    Cut(usize),
    /// The connection ends without an answer.
    Lost,
    /// No answer ever.
    Hang,
    /// These bytes in place of an answer.
    Raw(Vec<u8>),
    /// The same, and the connection is reset after them: what the other side has not read is lost.
    Reset(Vec<u8>),
}

impl ScriptedAnswer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: vec![("x-amz-request-id".into(), "REQUEST7".into())],
            body: Vec::new(),
            end: AnswerEnd::Whole,
            gate: None,
        }
    }

    /// S3's error with `code`.
    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::new(status).body(format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>because {code}</Message>\
             </Error>"
        ))
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn cut(mut self, at: usize) -> Self {
        self.end = AnswerEnd::Cut(at);
        self
    }

    pub(super) fn gate(mut self, gate: &Arc<Semaphore>) -> Self {
        self.gate = Some(Arc::clone(gate));
        self
    }

    pub(super) fn lost() -> Self {
        Self {
            end: AnswerEnd::Lost,
            ..Self::new(500)
        }
    }

    pub(super) fn hang() -> Self {
        Self {
            end: AnswerEnd::Hang,
            ..Self::new(500)
        }
    }

    pub(super) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            end: AnswerEnd::Raw(bytes.into()),
            ..Self::new(500)
        }
    }

    pub(super) fn reset(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            end: AnswerEnd::Reset(bytes.into()),
            ..Self::new(500)
        }
    }

    /// The answer to a GET of `asked`'s range of `object`.
    pub(super) fn range(asked: &SeenRequest, object: &[u8], etag: &str) -> Self {
        let (begin, end) = asked
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="))
            .and_then(|range| range.split_once('-'))
            .map(|(begin, end)| {
                (
                    begin.parse::<usize>().unwrap(),
                    end.parse::<usize>().unwrap(),
                )
            })
            .unwrap();
        let end = (end + 1).min(object.len());
        Self::new(206)
            .header("ETag", etag)
            .header(
                "Content-Range",
                format!("bytes {begin}-{}/{}", end - 1, object.len()),
            )
            .body(&object[begin..end])
    }
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct ScriptedServer {
    pub(super) url: String,
    log: Arc<Mutex<Vec<SeenRequest>>>,
    _tasks: JoinSet<()>,
}

impl ScriptedServer {
    /// Answers the requests as `script` says; it is told how many came before.
    pub(super) async fn start<S>(script: S) -> Self
    where
        S: Fn(usize, &SeenRequest) -> ScriptedAnswer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&log);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&seen), Arc::clone(&script)));
            }
        });
        Self {
            url,
            log,
            _tasks: tasks,
        }
    }

    /// Answers the first request by the first of `answers` and so on; the last one goes on.
    pub(super) async fn scripted(answers: Vec<ScriptedAnswer>) -> Self {
        Self::start(move |at, _asked| answers[at.min(answers.len() - 1)].clone()).await
    }

    pub(super) fn requests(&self) -> Vec<SeenRequest> {
        self.log.lock().clone()
    }

    /// Method and path of every request, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |asked: &SeenRequest| format!("{} {}", asked.method, asked.target);
        self.log.lock().iter().map(line).collect()
    }

    /// The methods of the requests, in order.
    pub(super) fn methods(&self) -> Vec<String> {
        self.log
            .lock()
            .iter()
            .map(|asked| asked.method.clone())
            .collect()
    }
}

async fn serve<S>(mut stream: TcpStream, log: Arc<Mutex<Vec<SeenRequest>>>, script: Arc<S>)
where
    S: Fn(usize, &SeenRequest) -> ScriptedAnswer,
{
    let mut buffer = Vec::new();
    while let Some(asked) = read_request(&mut stream, &mut buffer).await {
        let answer = {
            let mut log = log.lock();
            let at = log.len();
            let answer = script(at, &asked);
            log.push(asked.clone());
            answer
        };
        if let Some(gate) = &answer.gate {
            gate.acquire().await.unwrap().forget();
        }
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        for (name, value) in &answer.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if !answer
            .headers
            .iter()
            .any(|(name, _)| name == "Content-Length")
        {
            write!(head, "Content-Length: {}\r\n", answer.body.len()).unwrap();
        }
        head.push_str("\r\n");
        let body: &[u8] = if asked.method == "HEAD" {
            &[]
        } else {
            &answer.body
        };
        match &answer.end {
            AnswerEnd::Whole => {
                if stream.write_all(head.as_bytes()).await.is_err()
                    || stream.write_all(body).await.is_err()
                {
                    return;
                }
            }
            AnswerEnd::Cut(at) => {
                let _gone = stream.write_all(head.as_bytes()).await;
                let _gone = stream.write_all(&body[..*at]).await;
                return;
            }
            AnswerEnd::Lost => return,
            AnswerEnd::Hang => std::future::pending().await,
            AnswerEnd::Raw(bytes) => {
                let _gone = stream.write_all(bytes).await;
                return;
            }
            AnswerEnd::Reset(bytes) => {
                let _gone = stream.write_all(bytes).await;
                stream.set_zero_linger().unwrap();
                return;
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<SeenRequest> {
    let head_len = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
        // A TLS record, which every HTTP server answers in its own tongue.
        if buffer[0] == 0x16 {
            let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.ok()?;
            return None;
        }
    };
    let head = String::from_utf8(buffer[..head_len].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let len: usize = headers
        .get("content-length")
        .map_or(0, |len| len.parse().unwrap());
    while buffer.len() < head_len + len {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[head_len..head_len + len].to_vec();
    buffer.drain(..head_len + len);
    Some(SeenRequest {
        method,
        target,
        headers,
        body,
    })
}

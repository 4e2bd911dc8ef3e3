//! `--metrics ADDR`: one page over HTTP, for Prometheus. It understands as much of HTTP/1.1 as a
//! scrape needs: one GET a connection, answered and closed. Connections are few and timed, the page is
//! made when it is asked for, and a listener that nobody asks sleeps.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Scrapes at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 4;
/// How long a scrape may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request head in bytes.
const HEAD_MAX: usize = 8 << 10;

/// Serves `page` on `socket`. Gives the address really taken, and the future that serves; runs
/// inside a tokio runtime.
///
/// # Errors
/// The system refuses the socket.
pub fn listen(
    socket: std::net::TcpListener,
    page: impl Fn() -> String + Send + Sync + 'static,
) -> io::Result<(SocketAddr, impl Future<Output = ()> + Send)> {
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket)?;
    Ok((listener.local_addr()?, serve(listener, Arc::new(page))))
}

async fn serve(listener: TcpListener, page: Arc<impl Fn() -> String + Send + Sync + 'static>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = room.clone().acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                tokio::spawn(async move {
                    // Whoever hung up early wants no answer.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &*page)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the metrics listener takes no connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, page: &(impl Fn() -> String + Sync)) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let room = HEAD_MAX - head.len();
        if room == 0 || (&mut stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, kind, body) = if head.starts_with(b"GET /metrics ") || head.starts_with(b"GET / ")
    {
        ("200 OK", "text/plain; version=0.0.4; charset=utf-8", page())
    } else if head.starts_with(b"GET ") {
        (
            "404 Not Found",
            "text/plain",
            "metrics are at /metrics\n".to_owned(),
        )
    } else {
        (
            "405 Method Not Allowed",
            "text/plain",
            "only GET is answered\n".to_owned(),
        )
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_scrape_gets_the_page_and_others_are_told() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, serving) = listen(socket, || "x 1\n".to_owned()).unwrap();
        let serving = tokio::spawn(serving);
        let page = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\nx 1\n"),
            "{page}"
        );
        assert!(
            ask(address, "GET /x HTTP/1.1\r\n\r\n")
                .await
                .contains("404")
        );
        assert!(
            ask(address, "POST /metrics HTTP/1.1\r\n\r\n")
                .await
                .contains("405")
        );
        assert_eq!(ask(address, &"x".repeat(HEAD_MAX)).await, "");
        serving.abort();
    }
}

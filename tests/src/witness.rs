//! The second S3 client: what it sees is what the world sees.
//!
//! It shares no code with the gateway: rusty-s3 signs URLs, ureq sends them, no SDK, no hyper.
//! It retries nothing and caches nothing. A claim "`close()` returned, so the bytes are in the
//! bucket" is this client's HEAD and GET right after that close.
//!
//! Answers that a test may want to see (404, 412) are values; anything else panics with the
//! store's words, because a witness that cannot see has nothing to say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use rusty_s3::actions::{
    CreateBucket, DeleteObject, GetObject, HeadBucket, HeadObject, ListObjectsV2, PutObject,
    S3Action,
};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use ureq::http::Response;
use ureq::{Agent, Body};

/// How long a signed URL is good for; longer than any test.
const EXPIRY: Duration = Duration::from_hours(1);

/// A client of one bucket.
#[derive(Debug, Clone)]
pub struct Witness {
    bucket: Bucket,
    credentials: Credentials,
    agent: Agent,
}

/// An object as HEAD shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its version, without quotes.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// User metadata, names without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its whole key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its version, without quotes.
    pub etag: String,
}

/// What must be true of the target for a put to happen.
#[derive(Debug, Clone, Copy)]
pub enum If<'a> {
    /// Nothing is there.
    Absent,
    /// This version is there.
    Matches(&'a str),
}

impl Witness {
    /// A client of `bucket` at `endpoint` (path style, plain HTTP).
    pub fn new(endpoint: &str, bucket: &str, key: &str, secret: &str) -> Self {
        let url = endpoint.parse().expect("the endpoint is a URL");
        let bucket = Bucket::new(url, UrlStyle::Path, bucket.to_owned(), "us-east-1")
            .expect("the endpoint has a host");
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_mins(2)))
            .timeout_connect(Some(Duration::from_secs(5)))
            .build()
            .into();
        Self {
            bucket,
            credentials: Credentials::new(key, secret),
            agent,
        }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        self.bucket.name()
    }

    /// True if an S3 store answers at the endpoint, whatever it says of the bucket.
    pub fn store_answers(&self) -> bool {
        let url = HeadBucket::new(&self.bucket, Some(&self.credentials)).sign(EXPIRY);
        // MinIO answers 503 while it is not initialised.
        self.agent
            .head(url.as_str())
            .call()
            .is_ok_and(|answer| answer.status().as_u16() < 500)
    }

    /// Makes the bucket.
    pub fn create_bucket(&self) {
        let url = CreateBucket::new(&self.bucket, &self.credentials).sign(EXPIRY);
        let answer = self
            .agent
            .put(url.as_str())
            .send(&[])
            .expect("the store answers");
        expect(answer, &[200], "create bucket", self.bucket.name());
    }

    /// The object at `key`, without its bytes.
    pub fn head(&self, key: &str) -> Option<Head> {
        let url = HeadObject::new(&self.bucket, Some(&self.credentials), key).sign(EXPIRY);
        let answer = self
            .agent
            .head(url.as_str())
            .call()
            .expect("the store answers");
        let answer = expect(answer, &[200, 404], "head", key);
        (answer.status() == 200).then(|| Head {
            etag: header(&answer, "etag")
                .expect("an object has an ETag")
                .trim_matches('"')
                .into(),
            size: header(&answer, "content-length")
                .and_then(|len| len.parse().ok())
                .expect("an object has a size"),
            metadata: answer
                .headers()
                .iter()
                .filter_map(|(name, value)| {
                    let name = name.as_str().strip_prefix("x-amz-meta-")?;
                    Some((name.to_owned(), value.to_str().ok()?.to_owned()))
                })
                .collect(),
            content_type: header(&answer, "content-type"),
        })
    }

    /// The object's bytes.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.get_with(key, &[])
    }

    /// The object's bytes `[offset, offset + len)`.
    pub fn get_range(&self, key: &str, offset: u64, len: u64) -> Option<Vec<u8>> {
        let range = format!("bytes={offset}-{}", offset + len - 1);
        self.get_with(key, &[("range", &range)])
    }

    fn get_with(&self, key: &str, headers: &[(&str, &str)]) -> Option<Vec<u8>> {
        let url = GetObject::new(&self.bucket, Some(&self.credentials), key).sign(EXPIRY);
        let mut request = self.agent.get(url.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.call().expect("the store answers");
        let mut answer = expect(answer, &[200, 206, 404], "get", key);
        if answer.status() == 404 {
            return None;
        }
        let body = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_vec();
        Some(body.expect("the store sends the whole body"))
    }

    /// Puts an object, whatever is there, and gives its ETag.
    pub fn put(&self, key: &str, bytes: &[u8]) -> String {
        self.put_with(key, bytes, &[])
            .unwrap_or_else(|status| panic!("put {key}: {status}"))
    }

    /// Puts an object on a condition; `Err` is the status of the refusal.
    pub fn put_if(&self, key: &str, bytes: &[u8], condition: If<'_>) -> Result<String, u16> {
        match condition {
            If::Absent => self.put_with(key, bytes, &[("if-none-match", "*")]),
            If::Matches(etag) => self.put_with(key, bytes, &[("if-match", &format!("\"{etag}\""))]),
        }
    }

    /// Puts an object with request headers; `Err` is the status of the refusal.
    pub fn put_with(
        &self,
        key: &str,
        bytes: &[u8],
        headers: &[(&str, &str)],
    ) -> Result<String, u16> {
        let mut action = PutObject::new(&self.bucket, Some(&self.credentials), key);
        for (name, value) in headers {
            action
                .headers_mut()
                .insert((*name).to_owned(), (*value).to_owned());
        }
        let url = action.sign(EXPIRY);
        let mut request = self.agent.put(url.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send(bytes).expect("the store answers");
        match answer.status().as_u16() {
            200 => Ok(header(&answer, "etag")
                .unwrap_or_default()
                .trim_matches('"')
                .to_owned()),
            status => Err(status),
        }
    }

    /// Copies an object inside the bucket.
    pub fn copy(&self, source: &str, target: &str) {
        let source = format!("/{}/{}", self.bucket.name(), encoded(source));
        let copied = self.put_with(target, &[], &[("x-amz-copy-source", &source)]);
        assert!(copied.is_ok(), "copy to {target}: {copied:?}");
    }

    /// Deletes an object; one that is not there is as good.
    pub fn delete(&self, key: &str) {
        let url = DeleteObject::new(&self.bucket, Some(&self.credentials), key).sign(EXPIRY);
        let answer = self
            .agent
            .delete(url.as_str())
            .call()
            .expect("the store answers");
        expect(answer, &[200, 204, 404], "delete", key);
    }

    /// Every object whose key begins with `prefix`, in the store's order.
    pub fn list(&self, prefix: &str) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut action = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
            // Stores differ in how they write a blank when keys come encoded; plain XML is plain.
            action.query_mut().remove("encoding-type");
            action.with_prefix(prefix.to_owned());
            if let Some(token) = token.take() {
                action.with_continuation_token(token);
            }
            let url = action.sign(EXPIRY);
            let answer = self
                .agent
                .get(url.as_str())
                .call()
                .expect("the store answers");
            let mut answer = expect(answer, &[200], "list", prefix);
            let text = answer
                .body_mut()
                .with_config()
                .limit(u64::MAX)
                .read_to_string();
            let text = text.expect("the store sends the whole listing");
            let page = ListObjectsV2::parse_response(&text)
                .unwrap_or_else(|error| panic!("list {prefix}: {error}: {text}"));
            found.extend(page.contents.into_iter().map(|entry| Listed {
                key: entry.key,
                size: entry.size,
                etag: entry.etag.trim_matches('"').to_owned(),
            }));
            token = page.next_continuation_token;
            if token.is_none() {
                return found;
            }
        }
    }

    /// The keys below `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.list(prefix)
            .into_iter()
            .map(|listed| listed.key)
            .collect()
    }

    /// Multipart uploads under way, as (key, id). `prefix` must be a whole key: MinIO lists the
    /// uploads of one key only.
    pub fn uploads(&self, prefix: &str) -> Vec<(String, String)> {
        // rusty-s3 has no such action; a GET of the empty key with `?uploads` is the same request.
        let mut action = GetObject::new(&self.bucket, Some(&self.credentials), "");
        action.query_mut().insert("uploads", "");
        action.query_mut().insert("prefix", prefix.to_owned());
        let url = action.sign(EXPIRY);
        let answer = self
            .agent
            .get(url.as_str())
            .call()
            .expect("the store answers");
        let mut answer = expect(answer, &[200], "list uploads", prefix);
        let text = answer
            .body_mut()
            .read_to_string()
            .expect("the store sends the whole listing");
        let element = |part: &str, name: &str| -> Option<String> {
            let (_, rest) = part.split_once(&format!("<{name}>"))?;
            Some(rest.split_once("</")?.0.to_owned())
        };
        text.split("<Upload>")
            .skip(1)
            .filter_map(|part| Some((element(part, "Key")?, element(part, "UploadId")?)))
            .collect()
    }
}

fn header(answer: &Response<Body>, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

fn expect(mut answer: Response<Body>, good: &[u16], what: &str, key: &str) -> Response<Body> {
    let status = answer.status().as_u16();
    if !good.contains(&status) {
        let words = answer.body_mut().read_to_string().unwrap_or_default();
        panic!("{what} {key:?}: the store answers {status}: {words}");
    }
    answer
}

/// `key` as a header can carry it: everything but unreserved bytes and `/` by percent.
fn encoded(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a string takes any text");
        }
    }
    text
}

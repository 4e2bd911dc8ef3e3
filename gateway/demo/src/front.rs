//! Between hyper and s3s: names requests, logs them, and does to them what the fault rules say.
//!
//! Order for one request: its head is told apart and logged; rules take it; effects before the store (delay, hang,
//! refusal, redirection, close); the store; the rest of the request's body is read if the store left any; effects after it
//! (delay, hang, lost answer); effects on the answer's body. Every answer carries `x-amz-request-id`.
//!
//! Returning an error to hyper closes the connection without another byte: that is how answers are lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use s3s::Body;
use s3s::service::S3Service;

use super::body::{Arriving, Damaged, Leaving, drain, lend};
use super::faults::{Active, Effect, Faults, Miscopying};
use super::get::http_date;
use super::operation::Target;
use super::receive::header;
use super::requests::{InProgress, RequestRecord, Requests};
use super::socket::Flushes;
use super::store::Store;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// XML as it looks when the connection to a broken proxy ends early.
const MALFORMED: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Result><Contents><Key>ha";

/// The front of a server.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) service: S3Service,
    pub(super) store: Arc<Store>,
    pub(super) faults: Faults,
    pub(super) requests: Requests,
    pub(super) ids: AtomicU64,
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
pub(super) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was closed on request")
    }
}

impl std::error::Error for Closed {}

impl Front {
    /// Answers one request of the connection whose `flushes` are given. Waits for the client and the faults.
    ///
    /// # Errors
    /// `Closed` if a fault wants no answer to be seen.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        flushes: &Flushes,
    ) -> Result<Response<Body>, Closed> {
        let id = format!("DEMO{:012X}", self.ids.fetch_add(1, Ordering::Relaxed));
        let (mut head, body) = request.into_parts();
        let target = Target::of(
            &head.method,
            head.uri.path(),
            head.uri.query().unwrap_or_default(),
            &head.headers,
        );
        let rules = self.faults.take(&target);
        let record = self.requests.begin(RequestRecord {
            operation: target.operation,
            bucket: target.bucket,
            key: target.key,
            query: head.uri.query().unwrap_or_default().to_owned(),
            range: header(&head.headers, "range")
                .or_else(|| header(&head.headers, "x-amz-copy-source-range")),
            if_match: header(&head.headers, "if-match"),
            if_none_match: header(&head.headers, "if-none-match"),
            body_len: body_len(&head.headers),
            request_id: id.clone(),
            faulted: !rules.is_empty(),
            ..Default::default()
        });

        let body = Arriving::new(body, record.meter());
        if let Some(miscopying) = rules.iter().find_map(Miscopying::of) {
            head.extensions.insert(miscopying);
        }
        let method = head.method.clone();
        let here = head.uri.to_string();
        let mut answer = match self.before(&rules, &here, &id).await {
            Err(Closed) => return Err(Closed),
            Ok(Some(answer)) => {
                drain(body).await;
                answer
            }
            Ok(None) => match self.refusal(&head.method, &head.headers, &id) {
                Some(answer) => {
                    drain(body).await;
                    answer
                }
                None => self.store(Request::from_parts(head, body)).await?,
            },
        };
        after(&rules, &mut answer, &method, flushes).await?;
        self.finish(&mut answer, &id, &record);
        Ok(answer)
    }

    /// Effects before the store.
    async fn before(
        &self,
        rules: &[Arc<Active>],
        here: &str,
        id: &str,
    ) -> Result<Option<Response<Body>>, Closed> {
        for rule in rules {
            match rule.effect() {
                Effect::DelayBefore(delay) => {
                    rule.fire();
                    tokio::time::sleep(*delay).await;
                }
                Effect::HangBefore => {
                    rule.fire();
                    rule.released().await;
                }
                Effect::CloseBefore => {
                    rule.fire();
                    return Err(Closed);
                }
                Effect::Refuse { status, code } => {
                    rule.fire();
                    return Ok(Some(error(*status, code, "refused on request", id)));
                }
                Effect::Redirect { status, location } => {
                    rule.fire();
                    let code = if *status == 301 {
                        "PermanentRedirect"
                    } else {
                        "TemporaryRedirect"
                    };
                    let mut answer = error(*status, code, "redirected on request", id);
                    let location = location.as_deref().unwrap_or(here);
                    if let Ok(location) = HeaderValue::from_str(location) {
                        answer.headers_mut().insert(LOCATION, location);
                    }
                    return Ok(Some(answer));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// What the store's quirks refuse by the head alone.
    fn refusal(&self, method: &Method, headers: &HeaderMap, id: &str) -> Option<Response<Body>> {
        let quirks = self.store.quirks();
        let payload = header(headers, "x-amz-content-sha256").unwrap_or_default();
        if quirks.trailers_refused && payload.starts_with("STREAMING-") {
            let message = "A header you provided implies functionality that is not implemented";
            return Some(error(501, "NotImplemented", message, id));
        }
        let wanted = quirks.region.as_deref()?;
        let signed = header(headers, "authorization")
            .and_then(|text| signed_region(&text).map(str::to_owned))?;
        if signed == wanted {
            return None;
        }
        let message = format!(
            "The authorization header is malformed; the region '{signed}' is wrong; expecting '{wanted}'"
        );
        let mut answer = if *method == Method::HEAD {
            error(301, "PermanentRedirect", &message, id)
        } else {
            let extra = format!("<Region>{wanted}</Region>");
            error_with(400, "AuthorizationHeaderMalformed", &message, id, &extra)
        };
        if let Ok(region) = HeaderValue::from_str(wanted) {
            answer.headers_mut().insert("x-amz-bucket-region", region);
        }
        Some(answer)
    }

    async fn store(&self, request: Request<Arriving>) -> Result<Response<Body>, Closed> {
        let (head, body) = request.into_parts();
        let (body, rest) = lend(body);
        let request = Request::from_parts(head, Body::http_body_unsync(body));
        let answer = self.service.call(request).await.map_err(|error| {
            tracing::error!(?error, "the demo store could not answer");
            Closed
        })?;
        rest.drain().await;
        Ok(answer)
    }

    fn finish(&self, answer: &mut Response<Body>, id: &str, record: &InProgress) {
        let status = answer.status().as_u16();
        let len = body_len(answer.headers());
        record.update(|record| {
            record.status = Some(status);
            record.answer_len = len;
        });
        let body = std::mem::take(answer.body_mut());
        *answer.body_mut() = Leaving::wrap(body, record.meter());
        let headers = answer.headers_mut();
        headers.insert(
            REQUEST_ID,
            HeaderValue::from_str(id).expect("an id is visible ASCII"),
        );
        headers.insert(SERVER, HeaderValue::from_static("ackfs-demo"));
        let ahead = self.store.quirks().clock_ahead;
        if !ahead.is_zero() {
            headers.insert(DATE, http_date(&(SystemTime::now() + ahead).into()));
        }
    }
}

/// Effects after the store, and on the answer.
async fn after(
    rules: &[Arc<Active>],
    answer: &mut Response<Body>,
    method: &Method,
    flushes: &Flushes,
) -> Result<(), Closed> {
    for rule in rules {
        match rule.effect() {
            Effect::DelayAfter(delay) => {
                rule.fire();
                tokio::time::sleep(*delay).await;
            }
            Effect::HangAfter => {
                rule.fire();
                rule.released().await;
            }
            Effect::LoseAnswer => {
                rule.fire();
                return Err(Closed);
            }
            Effect::Malformed => {
                rule.fire();
                *answer = xml(StatusCode::OK, MALFORMED.to_owned());
            }
            Effect::WrongLength { delta } => {
                rule.fire();
                let known = http_body::Body::size_hint(answer.body()).exact();
                let len = body_len(answer.headers()).or(known).unwrap_or(0);
                let wrong = len.saturating_add_signed(*delta);
                answer
                    .headers_mut()
                    .insert(CONTENT_LENGTH, HeaderValue::from(wrong));
                if *method != Method::HEAD {
                    damage(rule, answer, len, flushes);
                }
            }
            Effect::CorruptBody { .. } => {
                rule.fire();
                damage(rule, answer, 0, flushes);
            }
            // These fire when the body gets there.
            Effect::CutBody { .. } | Effect::StallBody { .. } => damage(rule, answer, 0, flushes),
            _ => {}
        }
    }
    Ok(())
}

fn damage(rule: &Arc<Active>, answer: &mut Response<Body>, len: u64, flushes: &Flushes) {
    let body = std::mem::take(answer.body_mut());
    *answer.body_mut() = Damaged::wrap(body, rule, len, flushes);
}

/// The region of a version 4 signature's scope.
fn signed_region(authorization: &str) -> Option<&str> {
    let (_, scope) = authorization.split_once("Credential=")?;
    scope.split(',').next()?.split('/').nth(2)
}

fn body_len(headers: &HeaderMap) -> Option<u64> {
    let decoded = header(headers, "x-amz-decoded-content-length");
    decoded
        .or_else(|| header(headers, "content-length"))?
        .parse()
        .ok()
}

fn error(status: u16, code: &str, message: &str, id: &str) -> Response<Body> {
    error_with(status, code, message, id, "")
}

fn error_with(status: u16, code: &str, message: &str, id: &str, extra: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{extra}\
         <RequestId>{id}</RequestId></Error>"
    );
    xml(
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        text,
    )
}

fn xml(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

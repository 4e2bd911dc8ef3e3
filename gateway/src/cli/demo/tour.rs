//! The steps of the demo. Each does something through the mount or past it, looks at it from the other
//! side, and says what was seen. A step that does not hold says what was expected.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ackfs_demo::Server;
use ackfs_demo::faults::{Effect, Rule};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::error::{DisplayErrorContext, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use nix::errno::Errno;
use tokio::runtime::Runtime;

use crate::logging::say;
use crate::metrics::Report;

use super::super::exit::Exit;
use super::child::BUCKET;
use super::interrupted::Interrupted;

/// The object whose reading is timed, in MiB.
const LARGE_MIB: usize = 256;
const MIB: usize = 1 << 20;

type StepResult = Result<String, String>;

/// How a tour ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Toured {
    /// All steps held.
    Held,
    /// One did not, or more.
    Failed,
    /// All held until a signal came, with its status.
    Interrupted(Exit),
}

/// The tour, and both sides of the bucket.
#[derive(Debug)]
pub(super) struct Tour<'a> {
    runtime: &'a Runtime,
    server: &'a Server,
    client: Client,
    dir: &'a Path,
    interrupted: Interrupted,
}

impl<'a> Tour<'a> {
    pub(super) fn new(
        runtime: &'a Runtime,
        server: &'a Server,
        (access_key, secret_key): &(String, String),
        dir: &'a Path,
        interrupted: Interrupted,
    ) -> Self {
        // The SDK as anybody would use it: nothing of the gateway's client is in it.
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(server.endpoint())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(access_key, secret_key, None, None, "demo"))
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self {
            runtime,
            server,
            client: Client::from_conf(config),
            dir,
            interrupted,
        }
    }

    /// Walks through all steps; `report` asks the mount how it is.
    pub(super) fn run(&self, report: impl Fn() -> Result<Report, String>) -> Toured {
        let steps: [(&str, &dyn Fn() -> StepResult); 5] = [
            (
                "written through the mount, read by another client when close() returns",
                &|| self.written(),
            ),
            ("put by that client, read through the mount", &|| self.put()),
            ("the store refuses, so close() fails", &|| self.refused()),
            ("256 MiB read through the mount, cold and again", &|| {
                self.large()
            }),
            ("the way to the kernel", &|| Ok(transport(&report()?))),
        ];
        walk(&steps, &self.interrupted)
    }

    fn written(&self) -> StepResult {
        let text = b"what close() acknowledged is in the bucket\n";
        let mut file = File::create(self.dir.join("hello.txt")).map_err(words)?;
        file.write_all(text).map_err(words)?;
        let began = Instant::now();
        nix::unistd::close(file).map_err(|errno| format!("close() said {errno}"))?;
        let closed = began.elapsed();
        let there = self.get("hello.txt")?;
        if *there != text[..] {
            return Err(format!("the bucket holds {} other bytes", there.len()));
        }
        Ok(format!(
            "hello.txt, {} bytes; close() took {} and the bucket holds the same bytes",
            text.len(),
            took(closed)
        ))
    }

    fn put(&self) -> StepResult {
        let text = Bytes::from_static(b"put past the mount\n");
        self.put_object("from-s3.txt", text.clone())?;
        let began = Instant::now();
        let seen = fs::read(self.dir.join("from-s3.txt")).map_err(words)?;
        if seen != text {
            return Err(format!("the mount shows {} other bytes", seen.len()));
        }
        Ok(format!(
            "from-s3.txt, {} bytes, the same through the mount {} later",
            seen.len(),
            took(began.elapsed())
        ))
    }

    fn refused(&self) -> StepResult {
        let fault = Rule::new(Effect::refuse(403, "AccessDenied")).key("refused.txt");
        let fault = self.server.faults().add(fault.on("PutObject"));
        let mut file = File::create(self.dir.join("refused.txt")).map_err(words)?;
        let written = file.write_all(b"nobody gets this");
        let closed = nix::unistd::close(file);
        // Before the fault goes: what a late upload would leave must not be there either.
        let there = self.get("refused.txt");
        fault.remove();
        written.map_err(words)?;
        match closed {
            Ok(()) => Err("close() said 0 for a file that the store refused".to_owned()),
            Err(errno) if there.is_ok() => Err(format!("close() said {errno}, yet it is there")),
            Err(Errno::EACCES) => Ok(
                "refused.txt: close() said EACCES (permission denied), and the \
                                      bucket has no such object"
                    .to_owned(),
            ),
            Err(errno) => Err(format!("close() said {errno} where EACCES is true")),
        }
    }

    fn large(&self) -> StepResult {
        let mut content = Vec::with_capacity(LARGE_MIB * MIB);
        (0..LARGE_MIB).for_each(|number| content.extend_from_slice(&block(number)));
        self.put_object("large.bin", content.into())?;
        let cold = self.read_large()?;
        let again = self.read_large()?;
        let rate = |time: Duration| LARGE_MIB as f64 / time.as_secs_f64();
        Ok(format!(
            "cold {} ({:.0} MiB/s), again {} ({:.0} MiB/s); every byte compared",
            took(cold),
            rate(cold),
            took(again),
            rate(again)
        ))
    }

    /// Reads it through the mount and compares every byte.
    fn read_large(&self) -> Result<Duration, String> {
        let mut buf = vec![0; MIB];
        let began = Instant::now();
        let mut file = File::open(self.dir.join("large.bin")).map_err(words)?;
        for number in 0..LARGE_MIB {
            if self.interrupted.by().is_some() {
                return Err("there was no time for it".to_owned());
            }
            file.read_exact(&mut buf).map_err(words)?;
            if buf != block(number) {
                return Err(format!("MiB {number} differs"));
            }
        }
        if file.read(&mut buf).map_err(words)? != 0 {
            return Err("there is more than was put".to_owned());
        }
        Ok(began.elapsed())
    }

    fn get(&self, key: &str) -> Result<Bytes, String> {
        self.runtime.block_on(async {
            let answer = self
                .client
                .get_object()
                .bucket(BUCKET)
                .key(key)
                .send()
                .await;
            let body = answer.map_err(|error| explained(&error))?.body;
            let body = body.collect().await.map_err(|error| error.to_string())?;
            Ok(body.into_bytes())
        })
    }

    fn put_object(&self, key: &str, body: Bytes) -> Result<(), String> {
        let request = self
            .client
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(ByteStream::from(body));
        let answer = self.runtime.block_on(request.send());
        answer.map(drop).map_err(|error| explained(&error))
    }
}

fn walk(steps: &[(&str, &dyn Fn() -> StepResult)], interrupted: &Interrupted) -> Toured {
    let mut held = true;
    let mut signal = None;
    for (number, (what, step)) in steps.iter().enumerate() {
        say(&format!("{}. {what}", number + 1));
        let ended = step();
        signal = interrupted.by();
        match ended {
            Ok(seen) => say(&format!("   ok: {seen}")),
            // Cut short, not wrong.
            Err(_) if signal.is_some() => {}
            Err(why) => {
                held = false;
                say(&format!("   DID NOT HOLD: {why}"));
            }
        }
        if signal.is_some() {
            break;
        }
    }
    match signal {
        _ if !held => Toured::Failed,
        Some(signal) => Toured::Interrupted(signal),
        None => Toured::Held,
    }
}

fn transport(report: &Report) -> String {
    let transport = &report.transport;
    match &*transport.reason {
        "" => format!("{}, {} slots", transport.name, transport.slots),
        reason => format!("{}; not uring, because {reason}", transport.name),
    }
}

/// A MiB that no other MiB of the object equals.
fn block(number: usize) -> Vec<u8> {
    let mut block = vec![(number % 251) as u8; MIB];
    block[..8].copy_from_slice(&(number as u64).to_le_bytes());
    block
}

/// How long something took, for people.
fn took(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

fn words(error: io::Error) -> String {
    error.to_string()
}

fn explained<
    E: std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
>(
    error: &SdkError<E, R>,
) -> String {
    format!("the other client failed: {}", DisplayErrorContext(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_failed_counts_whatever_comes_after() {
        let interrupted = Interrupted::default();
        let (held, failed) = (|| Ok("seen".to_owned()), || Err("not seen".to_owned()));
        assert_eq!(walk(&[("a", &held)], &interrupted), Toured::Held);
        let steps: [(&str, &dyn Fn() -> StepResult); 2] = [("a", &failed), ("b", &held)];
        assert_eq!(walk(&steps, &interrupted), Toured::Failed);
        let stopped = || {
            interrupted.set(Exit::Interrupted);
            failed()
        };
        let steps: [(&str, &dyn Fn() -> StepResult); 2] = [("a", &failed), ("b", &stopped)];
        assert_eq!(walk(&steps, &interrupted), Toured::Failed);
    }

    /// It was a step that did not hold, and the status was 0.
    #[test]
    fn ctrl_c_ends_the_tour_and_is_no_step_that_failed() {
        let interrupted = Interrupted::default();
        let held = || Ok("seen".to_owned());
        let stopped = || {
            interrupted.set(Exit::Interrupted);
            Err("not seen".to_owned())
        };
        let never = || panic!("the tour has ended");
        let steps: [(&str, &dyn Fn() -> StepResult); 3] =
            [("a", &held), ("b", &stopped), ("c", &never)];
        let wanted = Toured::Interrupted(Exit::Interrupted);
        assert_eq!(walk(&steps, &interrupted), wanted);
    }
}

//! The store's part: endpoint, credentials, conditional writes, checksums, clock. All of it is one
//! connection as a mount makes it, and its answer read line by line: what a failure is about decides
//! which line fails, and the lines before it are known to hold.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, SystemTime};

use ackfs_cache::object::{ETag, Key};
use ackfs_cache::store::{Condition, Metadata, ObjectStore, StoreErrorKind};
use bytes::Bytes;

use crate::config::Config;
use crate::daemon::s3_config;
use crate::s3::{Capabilities, Checksum, ConnectError, ConnectErrorKind, Honoured, S3Store};

use super::check::Check;
use super::keys;
use crate::cli::exit::CliError;

const ENDPOINT: &str = "endpoint";
const CREDENTIALS: &str = "credentials";
const CONDITIONS: &str = "conditional writes";
const CHECKSUMS: &str = "checksums";
const PART_COPIES: &str = "copies of parts";
const CLOCK: &str = "clock";

/// S3 refuses requests whose time is further off ("RequestTimeTooSkewed").
const SKEW_MAX: Duration = Duration::from_mins(15);
/// Beyond this a clock is not kept by anything.
const SKEW_WARN: Duration = Duration::from_secs(30);
/// How long a look at the store's clock may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a mount needs of the store. Waits for it.
pub(super) fn checks(config: &Config) -> Result<Vec<Check>, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::plain(format!("cannot start: {error}")))?;
    Ok(runtime.block_on(ask(config)))
}

async fn ask(config: &Config) -> Vec<Check> {
    let s3 = s3_config(&config.source.bucket, &config.store, config.mount.read_only);
    match S3Store::connect(s3, &config.source.prefix).await {
        Ok((store, found)) => {
            let mut checks = vec![
                endpoint(&found),
                credentials(config),
                conditions(&found, config.mount.read_only),
            ];
            checks.push(checksums(config, &store, &found).await);
            checks.push(part_copies(&store, config.mount.read_only).await);
            checks.push(clock(found.endpoint_url.as_deref()));
            checks.push(keys::check(&store, &config.source.prefix).await);
            checks
        }
        Err(error) => refused(config, &error),
    }
}

/// The line that failed, and those that are known to hold although the connection failed.
fn refused(config: &Config, error: &ConnectError) -> Vec<Check> {
    use ConnectErrorKind as Why;

    let failed = |name| Check::fail(name, error.message.clone(), error.fix.clone());
    let place = config
        .store
        .endpoint_url
        .as_deref()
        .unwrap_or("as AWS's settings say");
    match error.kind {
        Why::NoCredentials => vec![failed(CREDENTIALS)],
        Why::BadCredentials | Why::ExpiredToken | Why::Denied => {
            vec![
                Check::ok(ENDPOINT, format!("{place}, answers")),
                failed(CREDENTIALS),
            ]
        }
        Why::ClockSkew => vec![
            Check::ok(ENDPOINT, format!("{place}, answers")),
            failed(CLOCK),
        ],
        Why::NoSuchBucket | Why::WrongRegion => vec![
            Check::ok(ENDPOINT, format!("{place}, answers")),
            failed("bucket"),
        ],
        Why::BadEndpoint
        | Why::Unreachable
        | Why::Timeout
        | Why::NoAuthorities
        | Why::Tls
        | Why::NotTls
        | Why::NeedsTls
        | Why::NotS3
        | Why::Store => vec![failed(ENDPOINT)],
    }
}

fn endpoint(found: &Capabilities) -> Check {
    let place = found.endpoint_url.as_deref().unwrap_or("AWS S3");
    let style = if found.path_style {
        "path style"
    } else {
        "virtual-hosted style"
    };
    Check::ok(
        ENDPOINT,
        format!("{place}, region {}, {style}", found.region),
    )
}

fn credentials(config: &Config) -> Check {
    let found = if config.store.no_sign_request {
        "none are used, and the bucket can be listed without"
    } else {
        "accepted, and the bucket can be listed"
    };
    Check::ok(CREDENTIALS, found)
}

fn conditions(found: &Capabilities, read_only: bool) -> Check {
    let support = &found.conditional;
    let every = [
        ("new objects", support.put_if_absent),
        ("overwrites", support.put_if_match),
        ("multipart uploads", support.multipart),
        ("copies", support.copy_target),
        ("deletions", support.delete),
    ];
    let names = |wanted: Honoured| {
        let names: Vec<_> = every
            .iter()
            .filter(|(_, found)| *found == wanted)
            .map(|(name, _)| *name)
            .collect();
        names.join(", ")
    };
    let ignored = names(Honoured::No);
    if every[..3].iter().any(|(_, found)| *found == Honoured::No) {
        return Check::warn(
            CONDITIONS,
            format!(
                "not honoured on {ignored}: a close looks first and may overwrite what another writer published in between"
            ),
            "use a store or a version that honours If-Match and If-None-Match, or one writer a file",
        );
    }
    let tried = names(Honoured::Unknown);
    match (&*tried, &*ignored) {
        ("", "") => Check::ok(CONDITIONS, "honoured everywhere"),
        ("", ignored) => Check::ok(
            CONDITIONS,
            format!("honoured on every close; on {ignored} ackfs looks first"),
        ),
        (tried, _) if read_only => Check::ok(
            CONDITIONS,
            format!("not needed read-only ({tried} not tried)"),
        ),
        (tried, _) => Check::warn(
            CONDITIONS,
            format!("could not be tried on {tried}"),
            "let these credentials write below the prefix (s3:PutObject), or mount --read-only",
        ),
    }
}

/// Sends a checksum with a write whose condition cannot hold, so that nothing is written.
async fn checksums(config: &Config, store: &S3Store, found: &Capabilities) -> Check {
    let wanted = match config.store.checksum {
        Checksum::Auto => "auto",
        Checksum::Crc64Nvme => "crc64nvme",
        Checksum::Crc32 => "crc32",
        Checksum::WhenRequired => {
            return Check::ok(CHECKSUMS, "only where S3 demands one, as asked");
        }
    };
    if config.mount.read_only || found.conditional.put_if_match != Honoured::Yes {
        return Check::ok(CHECKSUMS, format!("{wanted}, not tried: that would write"));
    }
    let key = Key::new(format!("{}.ackfs-doctor", config.source.prefix));
    let never = Condition::Matches(ETag::new("\"00000000000000000000000000000000\""));
    let body = vec![Bytes::from_static(b"ackfs doctor")];
    match store.put(&key, body, &Metadata::default(), &never).await {
        Err(error)
            if matches!(
                error.kind,
                StoreErrorKind::Changed | StoreErrorKind::NotFound
            ) =>
        {
            Check::ok(CHECKSUMS, format!("{wanted}, accepted"))
        }
        Err(error) => Check::warn(
            CHECKSUMS,
            format!("{wanted} is refused: {}", error.message),
            "--checksum when-required",
        ),
        Ok(_) => Check::warn(
            CHECKSUMS,
            format!("{wanted}; the store wrote {key} against its condition"),
            format!("remove {key}"),
        ),
    }
}

/// Whether what did not change of a file has to travel when it is published.
async fn part_copies(store: &S3Store, read_only: bool) -> Check {
    if read_only {
        return Check::ok(PART_COPIES, "not needed read-only");
    }
    match store.probe_part_copies().await {
        Ok(Honoured::No) => Check::warn(
            PART_COPIES,
            "the store has no UploadPartCopy: bytes that did not change are fetched and sent again",
            "use a store or a version that has it where large files are changed in part",
        ),
        Ok(_) => Check::ok(PART_COPIES, "made by the store"),
        Err(error) => Check::warn(
            PART_COPIES,
            format!("could not be tried: {}", error.message),
            "let these credentials write below the prefix (s3:PutObject), or mount --read-only",
        ),
    }
}

/// How far the clocks are apart, where that can be seen without TLS; else that requests signed by
/// this clock are accepted says enough.
fn clock(endpoint_url: Option<&str>) -> Check {
    let seen = endpoint_url
        .and_then(|url| url.strip_prefix("http://"))
        .and_then(|place| store_time(place.split('/').next().unwrap_or(place)));
    let Some(theirs) = seen else {
        return Check::ok(CLOCK, "within the 15 minutes that signatures allow");
    };
    let ours = SystemTime::now();
    let apart = ours
        .duration_since(theirs)
        .unwrap_or_else(|earlier| earlier.duration());
    skew(apart)
}

fn skew(apart: Duration) -> Check {
    let mend = "synchronise the clock: sudo timedatectl set-ntp true";
    let found = format!("{} s apart from the store's", apart.as_secs());
    if apart > SKEW_MAX {
        Check::fail(
            CLOCK,
            format!("{found}; signatures are refused from 15 minutes on"),
            mend,
        )
    } else if apart > SKEW_WARN {
        Check::warn(CLOCK, found, mend)
    } else {
        Check::ok(CLOCK, "agrees with the store's")
    }
}

/// What the `Date` of any answer says. HTTP dates have whole seconds.
fn store_time(place: &str) -> Option<SystemTime> {
    let with_port = if place.rsplit(']').next()?.contains(':') {
        place.to_owned()
    } else {
        format!("{place}:80")
    };
    let address = with_port.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "HEAD / HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut head = String::new();
    stream.take(8 << 10).read_to_string(&mut head).ok()?;
    head.lines().find_map(date_of)
}

fn date_of(line: &str) -> Option<SystemTime> {
    use aws_smithy_types::date_time::Format;

    let (name, value) = line.split_once(':')?;
    if !name.eq_ignore_ascii_case("date") {
        return None;
    }
    let date = aws_smithy_types::DateTime::from_str(value.trim(), Format::HttpDate).ok()?;
    SystemTime::try_from(date).ok()
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    #[test]
    fn a_date_header_is_read() {
        let time = date_of("Date: Thu, 01 Jan 1970 00:01:00 GMT").unwrap();
        assert_eq!(
            time.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
            60
        );
        assert_eq!(date_of("Server: x"), None);
        assert_eq!(date_of("date: tomorrow"), None);
    }

    #[test]
    fn a_clock_is_judged_by_what_signatures_allow() {
        assert_eq!(skew(Duration::from_secs(2)).status, CheckStatus::Ok);
        assert_eq!(skew(Duration::from_secs(120)).status, CheckStatus::Warn);
        assert_eq!(skew(Duration::from_secs(1000)).status, CheckStatus::Fail);
    }
}

use clap::{Args, Command, FromArgMatches};

use super::units::{GIB, MIB};
use super::*;

fn host() -> Host {
    Host {
        env: [("HOME".to_owned(), "/home/a".to_owned())].into(),
        uid: 1000,
        gid: 100,
        memory_limit: None,
        memory_total: None,
        free_bytes: |_| Some(50 * GIB),
    }
}

fn flags(argv: &[&str]) -> Result<Flags, String> {
    let command = Flags::augment_args(Command::new("ackfs").no_binary_name(true));
    let matches = command
        .try_get_matches_from(argv)
        .map_err(|error| layers::one_line(&error))?;
    Ok(Flags::from_arg_matches(&matches).unwrap())
}

fn decided_on(argv: &[&str], host: &Host) -> Result<Config, String> {
    let source = "s3://data/in".parse().unwrap();
    Config::decide(source, Path::new("/mnt"), flags(argv)?, host).map_err(|error| error.to_string())
}

fn decided(argv: &[&str]) -> Result<Config, String> {
    decided_on(argv, &host())
}

#[test]
fn defaults_are_those_of_the_help() {
    let config = decided(&[]).unwrap();
    assert_eq!(config.cache.memory, 128 * MIB);
    assert_eq!(config.cache.size, 5 * GIB, "a tenth of what is free");
    assert_eq!(config.cache.dir, Path::new("/home/a/.cache/ackfs"));
    assert_eq!(config.cache.readahead_max, 64 * MIB);
    assert_eq!(config.cache.part_size, 8 * MIB);
    assert_eq!(config.store.max_requests, 64);
    assert_eq!(config.store.timeout, Duration::from_secs(60));
    assert_eq!(config.drain_timeout, Duration::from_secs(300));
    assert_eq!((config.mount.uid, config.mount.gid), (1000, 100));
    assert_eq!(
        (config.mount.file_mode, config.mount.dir_mode),
        (0o644, 0o755)
    );
    assert_eq!(config.mount.metadata_ttl, Duration::from_secs(1));
    assert_eq!(config.mount.negative_ttl, Duration::ZERO);
    assert_eq!(config.mount.queue_depth, 64);
    assert_eq!(config.mount.mount_options, [] as [&str; 0]);
    assert_eq!(config.on_conflict, OnConflict::Fail);
    assert!(config.log.level.starts_with("info"));
}

#[test]
fn mount_options_are_a_list() {
    let config = decided(&["--mount-options", "disable_sync_release,max_read=65536"]).unwrap();
    let options = ["disable_sync_release", "max_read=65536"];
    assert_eq!(config.mount.mount_options, options);
}

#[test]
fn a_small_cgroup_gets_a_quarter_for_bytes() {
    for (limit, memory) in [
        (256 * MIB, 64 * MIB),
        (GIB, 128 * MIB),
        (32 * MIB, 16 * MIB),
    ] {
        let host = Host {
            memory_limit: Some(limit),
            ..host()
        };
        let config = decided_on(&[], &host).unwrap();
        assert_eq!(config.cache.memory, memory);
        assert!(config.cache.readahead_max <= config.cache.share());
    }
}

#[test]
fn memory_that_the_cgroup_would_kill_for_is_refused() {
    let host = Host {
        memory_limit: Some(256 * MIB),
        ..host()
    };
    let error = decided_on(&["--memory=250MiB"], &host).unwrap_err();
    assert!(
        error.contains("cgroup") && error.contains("256 MiB"),
        "{error}"
    );
    assert!(decided_on(&["--memory=128MiB"], &host).is_ok());
}

#[test]
fn memory_that_the_machine_does_not_have_is_refused() {
    let host = Host {
        memory_total: Some(2 * GIB),
        ..host()
    };
    let error = decided_on(&["--memory=3GiB"], &host).unwrap_err();
    assert!(
        error.contains("--memory 3 GiB") && error.ends_with("2 GiB: lower it"),
        "{error}"
    );
    assert!(decided_on(&["--memory=1GiB"], &host).is_ok());
}

#[test]
fn the_parts_of_memory_are_the_whole() {
    let cache = decided(&["--memory=128MiB"]).unwrap().cache;
    let unpaid = cache.queued_max() / 6;
    assert_eq!(cache.clean_max() + unpaid + cache.budget(), cache.memory);
    assert_eq!((cache.share(), unpaid), (64 * MIB, 8 * MIB));
    assert!(cache.budget() - cache.withheld_max() >= cache.share());
    assert_eq!(cache.names_max(), 10_922);
    let cache = decided(&["--memory=128MiB", "--cache-size=0"])
        .unwrap()
        .cache;
    assert_eq!(cache.clean_max() + cache.budget(), cache.memory);
}

#[test]
fn bad_input_is_one_line_with_cause_and_fix() {
    for (argv, cause, fix) in [
        (&["--memory=1MiB"][..], "--memory", "16MiB"),
        (&["--memory=lots"], "--memory", "64MiB"),
        (&["--part-size=1MiB"], "--part-size", "5MiB to 5GiB"),
        (&["--part-size=6GiB"], "--part-size", "5MiB to 5GiB"),
        (
            &["--part-size=100MiB"],
            "does not fit into --memory",
            "200 MiB",
        ),
        (
            &["--readahead-max=1GiB"],
            "--readahead-max",
            "at most 64 MiB",
        ),
        (&["--cache-size=1MiB"], "--cache-size", "8MiB"),
        (&["--cache-size=ten"], "--cache-size", "1GiB"),
        (
            &["--cache-size=18446744073709551615"],
            "--cache-size",
            "at most 8 EiB",
        ),
        (&["--memory=99999999999999GiB"], "--memory", "at most 8 EiB"),
        (&["--uid=root"], "--uid", "a user id is a number"),
        (&["--uid=4294967295"], "--uid", "0 to 4294967294"),
        (&["--gid=wheel"], "--gid", "getent group"),
        (&["--sse-kms-key-id=x"], "--sse-kms-key-id", "--sse aws:kms"),
        (
            &["--sse-kms-key-id=x", "--sse=AES256"],
            "--sse-kms-key-id",
            "--sse aws:kms",
        ),
        (
            &["--no-sign-request", "--profile=x"],
            "--profile",
            "leave one out",
        ),
        (&["--store-timeout=1ms"], "--store-timeout", "1s to 1h"),
        (&["--store-timeout=5"], "--store-timeout", "500ms"),
        (&["--metadata-ttl=2d"], "--metadata-ttl", "0 to 1d"),
        (&["--max-requests=0"], "--max-requests", "1..=1024"),
        (&["--queue-depth=8"], "--queue-depth", "16..=1024"),
        (&["--file-mode=0999"], "--file-mode", "octal"),
        (
            &["--endpoint-url=localhost:9000"],
            "--endpoint-url",
            "http://",
        ),
        (
            &["--endpoint-url=http://"],
            "--endpoint-url",
            "names a host",
        ),
        (
            &["--endpoint-url=http://a:b@c"],
            "credentials",
            "AWS_ACCESS_KEY_ID",
        ),
        (
            &["--close-waits-for=journal"],
            "--close-waits-for",
            "not offered yet",
        ),
        (
            &["--on-conflict=keep-both"],
            "--on-conflict",
            "fail or overwrite",
        ),
        (&["--transport=ring"], "--transport", "uring"),
        (&["--log-level=lo=ud=er"], "--log-level", "debug"),
        (&["--metrics=localhost"], "--metrics", "127.0.0.1:9464"),
        (&["--cache-dri=/x"], "--cache-dri", "--cache-dir"),
    ] {
        let error = decided(argv).unwrap_err();
        assert!(
            error.contains(cause) && error.contains(fix),
            "{argv:?}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{argv:?}: {error}");
    }
}

#[test]
fn without_a_home_the_cache_wants_a_place() {
    let host = Host {
        env: [].into(),
        ..host()
    };
    assert!(decided_on(&[], &host).unwrap_err().contains("--cache-dir"));
    assert!(
        decided_on(&["--cache-dir=/c"], &host)
            .unwrap()
            .cache
            .dir_is_given
    );
}

#[test]
fn rust_log_is_respected_below_the_flag() {
    let host = Host {
        env: [
            ("HOME".into(), "/h".into()),
            ("RUST_LOG".into(), "trace".into()),
        ]
        .into(),
        ..host()
    };
    assert_eq!(decided_on(&[], &host).unwrap().log.level, "trace");
    assert_eq!(
        decided_on(&["--log-level=error"], &host).unwrap().log.level,
        "error"
    );
}

/// A line of 700 characters in Rust's debug format came before the one that says it in words.
#[test]
fn warnings_in_debug_format_are_for_those_who_ask_for_more() {
    for (level, quiet) in [("info", true), ("warn", true), ("debug", false)] {
        let config = decided(&["--log-level", level]).unwrap();
        let told = config.log.level;
        for library in ["aws_config", "aws_smithy_http_client"] {
            let silenced = told.contains(&format!("{library}=error"));
            assert_eq!(silenced, quiet, "{told}");
        }
    }
}

#[test]
fn caches_of_different_stores_do_not_meet() {
    let config = decided(&[]).unwrap();
    let mut other = config.clone();
    other.source.prefix = String::new();
    assert_eq!(config.cache_name("http://a"), config.cache_name("http://a"));
    assert_ne!(config.cache_name("http://a"), config.cache_name("http://b"));
    assert_ne!(config.cache_name("http://a"), other.cache_name("http://a"));
    assert!(config.cache_name("http://a").starts_with("data-"));
    assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
}

//! Values with units, as people write them: sizes (`64MiB`), durations (`500ms`), permission bits
//! (`0644`), the address of the metrics listener, the place in the store. Each parser gives one line
//! that says what was expected; the caller names the flag. Everything here is pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// One kibibyte, mebibyte, gibibyte in bytes.
pub const KIB: u64 = 1 << 10;
/// See [`KIB`].
pub const MIB: u64 = 1 << 20;
/// See [`KIB`].
pub const GIB: u64 = 1 << 30;

/// The largest offset in a file, in bytes.
const SIZE_MAX: u64 = i64::MAX as u64;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "a size is a number with a unit, as 512KiB, 64MiB, 1GiB or 10GB".to_owned();
        // bytesize takes "1e3" and such for floats; sizes of files are written plainly.
        if text.is_empty()
            || !text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ". ".contains(c))
        {
            return Err(bad());
        }
        match text.parse::<bytesize::ByteSize>() {
            // bytesize gives its largest number for what does not fit.
            Ok(size) if size.as_u64() <= SIZE_MAX => Ok(Self(size.as_u64())),
            Ok(_) => Err("a size is at most 8 EiB, which is what a file can have".to_owned()),
            Err(_) => Err(bad()),
        }
    }
}

impl fmt::Display for Size {
    /// The largest binary unit that needs at most one decimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            bytes if bytes >= GIB => (GIB, "GiB"),
            bytes if bytes >= MIB => (MIB, "MiB"),
            bytes if bytes >= KIB => (KIB, "KiB"),
            bytes => return write!(f, "{bytes} B"),
        };
        if self.0.is_multiple_of(unit) {
            write!(f, "{} {name}", self.0 / unit)
        } else {
            write!(f, "{:.1} {name}", self.0 as f64 / unit as f64)
        }
    }
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            "a duration is a number with a unit, as 500ms, 1s or 5m (0 is none)".to_owned()
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// Permission bits, written in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(bits) if bits <= 0o777 => Ok(Self(bits)),
            _ => Err("permission bits are octal, 0 to 0777, as 0644".to_owned()),
        }
    }
}

/// Parses the address of the metrics listener: `ADDR:PORT`, or a port of the loopback.
///
/// # Errors
/// One line that says what was expected.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| {
        "an address is IP:PORT, as 127.0.0.1:9464, or a port of the loopback, as 9464".to_owned()
    })
}

/// A bucket and where in it: what `s3://BUCKET[/PREFIX]` names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Uri {
    /// The bucket.
    pub bucket: String,
    /// `""`, or a prefix that ends with `/`.
    pub prefix: String,
}

impl FromStr for S3Uri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("s3://") else {
            return Err(match text.split_once(':') {
                None if !text.starts_with(['/', '.']) => {
                    format!("a bucket is named as s3://BUCKET[/PREFIX]; did you mean s3://{text}")
                }
                _ => "a bucket is named as s3://BUCKET[/PREFIX]".to_owned(),
            });
        };
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let named = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(named) {
            return Err(format!(
                "{bucket:?} cannot be a bucket's name: 3 to 63 letters, digits, dots and hyphens"
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.split('/').any(|name| matches!(name, "." | ".."))
            || prefix.contains("//")
            || prefix.starts_with('/')
            || prefix.contains('\0')
        {
            return Err(format!(
                "prefix {prefix:?} has a part that cannot be a name (empty, . or ..)"
            ));
        }
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix,
        })
    }
}

impl fmt::Display for S3Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, bytes) in [
            ("64MiB", 64 * MIB),
            ("1GiB", GIB),
            ("1 GiB", GIB),
            ("1.5GiB", GIB + GIB / 2),
            ("10GB", 10_000_000_000),
            ("0", 0),
            ("4096", 4096),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn bad_sizes_say_what_a_size_is() {
        for text in [
            "", "-1", "ten", "8Mi B8", "1..5GiB", "5XiB", "1e3x", "+5MiB",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains("64MiB"), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_beyond_any_file_are_refused() {
        for text in [
            "18446744073709551615",
            "99999999999999GiB",
            "9223372036854775808",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains("at most 8 EiB"), "{text}: {error}");
        }
        assert!("7EiB".parse::<Size>().is_ok());
    }

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        assert_eq!(Size(8 * MIB).to_string(), "8 MiB");
        assert_eq!(Size(GIB + GIB / 2).to_string(), "1.5 GiB");
        assert_eq!(Size(12).to_string(), "12 B");
    }

    #[test]
    fn durations_want_a_unit() {
        assert_eq!("500ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("0".parse(), Ok(Span(Duration::ZERO)));
        assert_eq!("1m 30s".parse(), Ok(Span(Duration::from_secs(90))));
        for text in ["5", "", "-1s", "soon"] {
            assert!(
                text.parse::<Span>().unwrap_err().contains("500ms"),
                "{text}"
            );
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!("0644".parse(), Ok(Mode(0o644)));
        assert_eq!("755".parse(), Ok(Mode(0o755)));
        for text in ["0888", "01777", "rw-r--r--", ""] {
            assert!(
                text.parse::<Mode>().unwrap_err().contains("octal"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_bare_port_listens_on_the_loopback() {
        assert_eq!(
            listen_address("9464").unwrap().to_string(),
            "127.0.0.1:9464"
        );
        assert_eq!(
            listen_address(":9464").unwrap().to_string(),
            "127.0.0.1:9464"
        );
        assert_eq!(listen_address("[::]:1").unwrap().to_string(), "[::]:1");
        assert!(listen_address("localhost").is_err());
    }

    #[test]
    fn a_source_names_bucket_and_prefix() {
        for (text, bucket, prefix) in [
            ("s3://data", "data", ""),
            ("s3://data/", "data", ""),
            ("s3://data/a/b", "data", "a/b/"),
            ("s3://data/a/b/", "data", "a/b/"),
        ] {
            let source: S3Uri = text.parse().unwrap();
            assert_eq!(
                (&*source.bucket, &*source.prefix),
                (bucket, prefix),
                "{text}"
            );
        }
    }

    #[test]
    fn a_bad_source_is_told_apart() {
        for (text, why) in [
            ("data", "did you mean s3://data"),
            ("https://data", "s3://BUCKET"),
            ("s3://", "cannot be a bucket's name"),
            ("s3://ab", "3 to 63"),
            ("s3://a b c", "cannot be a bucket's name"),
            ("s3://data//x", "cannot be a name"),
            ("s3://data/../x", "cannot be a name"),
        ] {
            let error = text.parse::<S3Uri>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

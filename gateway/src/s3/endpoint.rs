//! The URL of an endpoint: whether it can be one, and what it says by itself.

/// Why a URL cannot be an endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadEndpoint {
    /// It has no scheme.
    NoScheme,
    /// It is neither http nor https.
    OtherScheme,
    /// It names no host.
    NoHost,
    /// It holds a user name, which is no way to give credentials.
    UserName,
}

/// Whether `url` can be an endpoint's. The only look at one, wherever it comes from.
///
/// # Errors
/// Why it cannot.
pub fn check_endpoint(url: &str) -> Result<(), BadEndpoint> {
    let (scheme, rest) = url.split_once("://").ok_or(BadEndpoint::NoScheme)?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(BadEndpoint::OtherScheme);
    }
    let host = host(rest);
    if host.is_empty() || host.starts_with(':') || url.contains(char::is_whitespace) {
        return Err(BadEndpoint::NoHost);
    }
    if host.contains('@') {
        return Err(BadEndpoint::UserName);
    }
    Ok(())
}

/// Whether `url` says http.
pub(super) fn is_plain(url: &str) -> bool {
    url.get(..7)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
}

/// Whether `url` is one of AWS's own endpoints (a VPC endpoint, FIPS, dual stack).
pub(super) fn is_aws(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_scheme, rest)| rest);
    let name = host(rest).split(':').next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"]
        .iter()
        .any(|domain| name.ends_with(domain))
}

/// The host and port of a URL without its scheme.
fn host(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_name_a_host_are_endpoints() {
        for (url, wanted) in [
            ("http://127.0.0.1:9000", Ok(())),
            ("HTTPS://s3.example.org/path", Ok(())),
            ("s3.example.org", Err(BadEndpoint::NoScheme)),
            ("ftp://s3.example.org", Err(BadEndpoint::OtherScheme)),
            ("http:///path", Err(BadEndpoint::NoHost)),
            ("http://:9000", Err(BadEndpoint::NoHost)),
            ("http://s3 example.org", Err(BadEndpoint::NoHost)),
            (
                "http://me:secret@s3.example.org",
                Err(BadEndpoint::UserName),
            ),
        ] {
            assert_eq!(check_endpoint(url), wanted, "{url}");
        }
    }

    #[test]
    fn only_awss_own_hosts_are_presumed_to_honour_everything() {
        assert!(is_aws("https://s3.eu-west-1.amazonaws.com"));
        assert!(is_aws(
            "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com:443/x"
        ));
        assert!(!is_aws("https://amazonaws.com.example.org"));
        assert!(!is_aws("http://127.0.0.1:9000"));
    }
}

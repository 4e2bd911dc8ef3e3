//! What is wrong with a certificate, by the words of rustls and webpki.

use crate::s3::connect_error::ConnectTarget;

/// What is wrong with the store's certificate, and what mends it. The names are rustls's and webpki's.
pub(super) fn by_certificate(target: &ConnectTarget<'_>, cause: &str) -> Option<(String, String)> {
    let has = |text: &str| cause.contains(text);
    let (wrong, fix) = if has("not valid for name") || has("NotValidForName") {
        let dotted = target.bucket.contains('.');
        (
            format!("is for another name{}", names_of(cause)),
            if dotted {
                "use the name that the certificate is for; a bucket with dots in its name needs \
                 --path-style always"
            } else {
                "use the name that the certificate is for, or reissue it for this one \
                 (subjectAltName)"
            },
        )
    } else if has("certificate expired") || has("Expired") {
        let since = time_after(cause, "not valid after ");
        (
            format!("has expired{since}"),
            "renew it, or check this machine's clock (date)",
        )
    } else if has("not valid yet") || has("NotValidYet") {
        let before = time_after(cause, "not valid before ");
        (
            format!("is not valid yet{before}"),
            "check this machine's clock (date)",
        )
    } else if has("CaUsedAsEndEntity") {
        (
            "is an authority's and not a server's (basicConstraints=CA:TRUE)".to_owned(),
            "reissue it with basicConstraints=CA:FALSE (openssl req -x509 -addext \
             basicConstraints=critical,CA:FALSE); AWS_CA_BUNDLE alone does not help",
        )
    } else if has("UnsupportedCertVersion") {
        (
            "is of an old version".to_owned(),
            "reissue it as X.509 version 3, with a subjectAltName",
        )
    } else if has("UnknownIssuer") {
        (
            "is not trusted: nobody knows who issued it".to_owned(),
            "name the authority's PEM file in AWS_CA_BUNDLE, or install it on the system",
        )
    } else if has("certificate") {
        (
            format!("is not trusted: {cause}"),
            "name the authority's PEM file in AWS_CA_BUNDLE, or install it on the system",
        )
    } else if has("TLS handshake") || has("tls handshake") || has("fatal alert") {
        let message = format!("no TLS with {target}: {cause}");
        return Some((message, "check that it speaks TLS 1.2 or newer".to_owned()));
    } else {
        return None;
    };
    let message = format!("the certificate of {target} {wrong}");
    Some((message, fix.to_owned()))
}

/// Which names the certificate is for: rustls has `...; certificate is only valid for
/// DnsName("a.example")`.
fn names_of(cause: &str) -> String {
    let Some((_, names)) = cause.split_once("; certificate is ") else {
        return String::new();
    };
    let mut names = names.replace("\")", "");
    for wrapper in ["DnsName(\"", "IpAddress(\"", "IpAddress("] {
        names = names.replace(wrapper, "");
    }
    format!(": it is {}", names.trim_end_matches(')'))
}

/// The time that stands behind `words` as seconds since 1970, as people read it.
fn time_after(cause: &str, words: &str) -> String {
    let seconds = cause.split_once(words).and_then(|(_, rest)| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    });
    let time = seconds.and_then(|seconds| {
        std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))
    });
    time.map_or_else(String::new, |time| {
        format!(": it is {words}{}", humantime::format_rfc3339_seconds(time))
    })
}

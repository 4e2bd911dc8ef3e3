//! Whether credentials can be had, and why not.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::{Credentials, ProvideCredentials};

use crate::s3::config::S3Config;
use crate::s3::connect_error::{ConnectError, ConnectErrorKind};
use crate::s3::error::chain;

/// How long finding credentials may take: a machine's role takes a few requests.
const CREDENTIALS_MAX: Duration = Duration::from_secs(15);

/// Whether credentials can be had at all, before a request fails for the lack of them. The services that
/// give them out (STS, SSO) speak https: where they were asked, `no_authorities` is why they failed.
pub(super) async fn check_credentials(
    sdk: &SdkConfig,
    config: &S3Config,
    no_authorities: Option<ConnectError>,
) -> Result<Credentials, ConnectError> {
    let Some(provider) = sdk.credentials_provider() else {
        return Err(no_credentials(config, None));
    };
    match tokio::time::timeout(CREDENTIALS_MAX, provider.provide_credentials()).await {
        Ok(Ok(credentials)) => Ok(credentials),
        Ok(Err(error)) => match no_authorities.filter(|_| wanted_https(&error)) {
            Some(no_authorities) => Err(no_authorities),
            None => Err(no_credentials(config, Some(&error))),
        },
        Err(_elapsed) => Err(no_credentials(config, None)),
    }
}

/// Why the chain gave none. Its last link is the machine's metadata service, whose failure stands for
/// all that was missing before it; so the mistakes that people make are looked for first.
fn no_credentials(config: &S3Config, error: Option<&CredentialsError>) -> ConnectError {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(half) = half_a_key(var) {
        return half;
    }
    let profile = config.profile.clone().or_else(|| var("AWS_PROFILE"));
    if let Some(name) = &profile {
        let files = profile_files(var);
        let texts = files
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok());
        if !texts.into_iter().any(|text| names_profile(&text, name)) {
            return no_profile(name, &files);
        }
    }
    nothing_found(profile.as_deref(), error)
}

/// No way of the chain gave credentials.
fn nothing_found(profile: Option<&str>, error: Option<&CredentialsError>) -> ConnectError {
    // The metadata service is asked last and on every machine: that it does not answer, or refuses,
    // means no more than that there is no role either.
    let why = error
        .filter(|error| !matches!(error, CredentialsError::CredentialsNotLoaded(_)))
        .map(|error| chain(error))
        .filter(|why| !why.contains("IMDS"))
        .map_or_else(String::new, |why| {
            format!(": {}", why.trim_end_matches('.'))
        });
    let of = profile.map_or_else(String::new, |profile| format!(" for profile {profile:?}"));
    ConnectError::new(
        ConnectErrorKind::NoCredentials,
        format!("no credentials found{of}{why}"),
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile with a profile of \
         ~/.aws/credentials, or run with a role; for a public bucket give --no-sign-request",
    )
}

/// Whether getting credentials failed because a client that speaks http only was given an https URL.
fn wanted_https(error: &CredentialsError) -> bool {
    // hyper's `HttpConnector`, see the module.
    chain(error).contains("scheme is not http")
}

/// One half of a key is in the environment and the other is not, so AWS's chain passes it by and asks
/// the machine's role in the end, which explains nothing. `var` looks into the environment.
fn half_a_key(var: impl Fn(&str) -> Option<String>) -> Option<ConnectError> {
    let set = |name| var(name).is_some_and(|value| !value.trim().is_empty());
    let secret = set("AWS_SECRET_ACCESS_KEY") || set("SECRET_ACCESS_KEY");
    let (there, missing) = match (set("AWS_ACCESS_KEY_ID"), secret) {
        (true, false) => ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        (false, true) => ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        _ => return None,
    };
    Some(ConnectError::new(
        ConnectErrorKind::NoCredentials,
        format!("no credentials found: {there} is set and {missing} is missing"),
        format!("set {missing} too (and export it), or unset {there} to use a profile or a role"),
    ))
}

/// Where AWS keeps profiles: credentials and configuration. `var` looks into the environment.
fn profile_files(var: impl Fn(&str) -> Option<String>) -> [PathBuf; 2] {
    let home = PathBuf::from(var("HOME").unwrap_or_else(|| "~".to_owned()));
    let file = |variable, otherwise| var(variable).map_or_else(|| home.join(otherwise), Into::into);
    [
        file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
        file("AWS_CONFIG_FILE", ".aws/config"),
    ]
}

/// Whether one of AWS's files with this text has the profile: `[NAME]`, or `[profile NAME]` in the
/// configuration. aws-config says the same of a profile that is missing and of one without keys.
fn names_profile(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let section = line.trim().strip_prefix('[');
        section
            .and_then(|rest| rest.split_once(']'))
            .is_some_and(|(section, _comment)| {
                let section = section.trim();
                let of_config = section.strip_prefix("profile").map(str::trim);
                section == name || of_config == Some(name)
            })
    })
}

/// There is no such profile in `files`.
fn no_profile(name: &str, files: &[PathBuf; 2]) -> ConnectError {
    let [credentials, config] = files;
    ConnectError::new(
        ConnectErrorKind::NoCredentials,
        format!(
            "no profile {name:?} in {} or {}",
            credentials.display(),
            config.display()
        ),
        format!("check --profile and AWS_PROFILE, or add it: aws configure --profile {name}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_key_is_told_with_the_half_that_is_missing() {
        let told = |set: &[&str]| {
            let var = |name: &str| set.contains(&name).then(|| "value".to_owned());
            half_a_key(var).map(|error| error.to_string())
        };
        let line = told(&["AWS_ACCESS_KEY_ID"]).unwrap();
        assert!(line.contains("AWS_SECRET_ACCESS_KEY is missing"), "{line}");
        let line = told(&["AWS_SECRET_ACCESS_KEY"]).unwrap();
        assert!(line.contains("AWS_ACCESS_KEY_ID is missing"), "{line}");
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]), None);
        assert_eq!(told(&["AWS_ACCESS_KEY_ID", "SECRET_ACCESS_KEY"]), None);
    }

    #[test]
    fn a_profile_is_found_in_either_of_awss_files() {
        let found = |text| names_profile(text, "foo");
        for text in [
            "[foo]",
            "[default]\nx = y\n [ profile  foo ] # mine",
            "[profile foo]\r\n",
        ] {
            assert!(found(text), "{text:?}");
        }
        for text in ["", "[foo-bar]", "foo", "[sso-session foo]", "x = [foo]"] {
            assert!(!found(text), "{text:?}");
        }
    }

    #[test]
    fn missing_credentials_are_told_with_the_ways_to_give_them() {
        let error = nothing_found(Some("work"), None);
        let line = error.to_string();
        for words in [
            "profile \"work\"",
            "AWS_ACCESS_KEY_ID",
            "--profile",
            "--no-sign-request",
        ] {
            assert!(line.contains(words), "{line}");
        }
    }
}

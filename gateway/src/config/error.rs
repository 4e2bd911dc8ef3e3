//! Why there is no configuration: one line each, with cause and fix.

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A flag or variable is bad, or two contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The file of `--config` cannot be read or is bad.
    #[error("{0}")]
    File(String),
}

/// Settings that are well written and cannot be had: out of bounds, or at odds with each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(
    /// One line with cause and fix; settings stand in it as flags, `--part-size`.
    pub String,
);

pub(super) fn usage<T>(why: impl Into<String>) -> Result<T, Unfit> {
    Err(Unfit(why.into()))
}

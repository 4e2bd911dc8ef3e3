//! One line of the doctor: ok, warn or fail, what was found, and what mends it.

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CheckStatus {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) status: CheckStatus,
    name: &'static str,
    pub(super) found: String,
    /// The command that mends it; for what is not ok.
    pub(super) mend: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            status: CheckStatus::Ok,
            name,
            found: found.into(),
            mend: None,
        }
    }

    pub(super) fn warn(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            status: CheckStatus::Warn,
            name,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    pub(super) fn fail(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            status: CheckStatus::Fail,
            ..Self::warn(name, found, mend)
        }
    }

    /// The line, `name` in a column of its own; the mending under it.
    pub(super) fn line(&self) -> String {
        let status = match self.status {
            CheckStatus::Ok => "ok  ",
            CheckStatus::Warn => "warn",
            CheckStatus::Fail => "fail",
        };
        let mut line = format!("{status}  {:<20} {}", self.name, self.found);
        if let Some(mend) = &self.mend {
            line.push_str("; mend: ");
            line.push_str(mend);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_verdict_cause_and_mending() {
        let check = Check::fail("/dev/fuse", "it is not there", "modprobe fuse");
        assert_eq!(
            check.line(),
            "fail  /dev/fuse            it is not there; mend: modprobe fuse"
        );
        assert!(
            Check::ok("kernel", "6.18")
                .line()
                .starts_with("ok    kernel")
        );
    }
}

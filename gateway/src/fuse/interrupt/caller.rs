//! What became of a caller for whom the kernel sent INTERRUPT. It sends one for any signal, and the
//! signal stays pending until the call is over, so the process's status file tells which it is.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// `/proc` shows the pid namespace that the kernel numbers callers in, which is ours.
static PROC_IS_OURS: LazyLock<bool> = LazyLock::new(|| {
    let me = std::process::id().to_string();
    fs::read_link("/proc/self").is_ok_and(|own| own == Path::new(&me))
});

/// SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN and SIGTTOU: whom they stop or continue goes on with its call.
const STOPPING: u64 = mask(&[18, 19, 20, 21, 22]);

const fn mask(signals: &[u32]) -> u64 {
    let mut mask = 0;
    let mut at = 0;
    while at < signals.len() {
        mask |= 1 << (signals[at] - 1);
        at += 1;
    }
    mask
}

/// What a caller that has a signal waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerState {
    /// The answer, to end: the signal kills it.
    Ends,
    /// The answer, to handle the signal then. Whether the call would be restarted the status does not
    /// say, and FUSE cannot do it.
    Handles,
    /// The answer and nothing else: another thread took the signal, or it is being stopped, traced or
    /// frozen.
    Waits,
    /// It is hidden from us or of another pid namespace.
    Unknown,
}

/// Looks at the thread `tid`. Waits for no one; reads a file of procfs.
pub(super) fn look(tid: u32) -> CallerState {
    if tid == 0 || !*PROC_IS_OURS {
        return CallerState::Unknown;
    }
    let status = fs::read_to_string(format!("/proc/{tid}/status"));
    status.map_or(CallerState::Unknown, |status| judge(&status))
}

fn judge(status: &str) -> CallerState {
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let sets = ["SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:"].map(set);
    let [
        Some(own),
        Some(shared),
        Some(blocked),
        Some(ignored),
        Some(caught),
    ] = sets
    else {
        return CallerState::Unknown;
    };
    let pending = (own | shared) & !blocked & !ignored;
    if pending & !caught & !STOPPING != 0 {
        CallerState::Ends
    } else if pending & caught != 0 {
        CallerState::Handles
    } else {
        CallerState::Waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(sets: [&[u32]; 5]) -> String {
        let names = ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"];
        let lines = names.iter().zip(sets);
        let lines = lines.map(|(name, signals)| format!("{name}:\t{:016x}\n", mask(signals)));
        format!("Name:\tcat\nSigQ:\t1/95870\n{}", lines.collect::<String>())
    }

    #[test]
    fn a_signal_is_judged_by_what_it_does_to_the_caller() {
        for (sets, caller) in [
            // SIGKILL, which is in every thread's own set, and SIGTERM.
            ([&[9][..], &[], &[], &[], &[]], CallerState::Ends),
            ([&[9], &[15], &[15], &[], &[15]], CallerState::Ends),
            ([&[], &[15], &[], &[], &[]], CallerState::Ends),
            // SIGALRM with a handler, SIGALRM with a handler and SIGINT without.
            ([&[], &[14], &[], &[], &[14]], CallerState::Handles),
            ([&[], &[14, 2], &[], &[], &[14]], CallerState::Ends),
            // Blocked, ignored, stopped.
            ([&[14], &[], &[14], &[], &[14]], CallerState::Waits),
            ([&[], &[17], &[], &[17], &[]], CallerState::Waits),
            ([&[], &[19], &[], &[], &[]], CallerState::Waits),
            ([&[], &[20, 18], &[], &[], &[18]], CallerState::Handles),
            ([&[], &[], &[], &[], &[14]], CallerState::Waits),
        ] {
            assert_eq!(judge(&status(sets)), caller, "{sets:?}");
        }
        assert_eq!(judge("Name:\tcat\n"), CallerState::Unknown);
    }

    #[test]
    fn the_kernel_s_own_file_is_read() {
        assert_eq!(look(std::process::id()), CallerState::Waits);
        assert_eq!(look(0), CallerState::Unknown);
        assert_eq!(look(u32::MAX), CallerState::Unknown);
    }
}

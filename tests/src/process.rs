//! What /proc says of a process: its memory, its processor time, and where its tasks wait.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Clock ticks a second in /proc/PID/stat; 100 on every Linux that Rust runs on (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process in KiB: now (`VmRSS`) and at its peak (`VmHWM`).
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub rss_kib: u64,
    /// The most that was resident since the process began, or since [`reset_peak`].
    pub peak_kib: u64,
}

/// The memory of process `pid`; `None` if it is gone.
pub fn memory(pid: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(Memory {
        rss_kib: field("VmRSS:")?,
        peak_kib: field("VmHWM:")?,
    })
}

/// Makes the peak of process `pid` count from now (`clear_refs`, proc(5)).
pub fn reset_peak(pid: u32) {
    // Without the right to do so the peak counts from the start, which is only stricter.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Processor time that process `pid` has used since it had used `before`.
pub fn cpu_since(pid: u32, before: Duration) -> Duration {
    cpu(pid).saturating_sub(before)
}

/// Processor time that process `pid` has used, user and system, all threads; zero if it is gone.
pub fn cpu(pid: u32) -> Duration {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Duration::ZERO;
    };
    // The command in parentheses may hold blanks; fields count from after it. utime is field 14.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = |index: usize| -> u64 {
        after
            .split_whitespace()
            .nth(index)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0)
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND)
}

/// Where every task of every process is: a line with its process, name and state, and below it the kernel
/// functions it waits in, the innermost first, if we are root and the kernel keeps track. Threads of
/// the kernel are left out. For a test that hangs: whoever holds it is among these.
pub fn all_tasks() -> String {
    let mut text = String::new();
    for process in numbered("/proc") {
        // Threads of the kernel have no command line.
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        if command.is_empty() {
            continue;
        }
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let _ = writeln!(text, "process {process}: {command}");
        for task in numbered(format!("/proc/{process}/task")) {
            let read = |name: &str| {
                let path = format!("/proc/{process}/task/{task}/{name}");
                fs::read_to_string(path).unwrap_or_default()
            };
            let (name, status) = (read("comm"), read("status"));
            let state = status.lines().find_map(|line| line.strip_prefix("State:"));
            let state = state.unwrap_or("?").trim();
            let _ = writeln!(text, "  task {task} {}, {state}", name.trim_end());
            for line in read("stack").lines() {
                let _ = writeln!(text, "    {}", line.trim_start_matches("[<0>] "));
            }
        }
    }
    text
}

/// The names in `dir` that are numbers, in their order.
fn numbered(dir: impl AsRef<Path>) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut numbers: Vec<u32> = names.collect();
    numbers.sort_unstable();
    numbers
}

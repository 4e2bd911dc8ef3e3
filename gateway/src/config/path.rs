//! Paths that need not exist yet.

use std::path::{Component, Path, PathBuf};

use super::error::Unfit;

/// `path` from the root, as it is written.
///
/// # Errors
/// It is empty, or the working directory is gone.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Unfit> {
    std::path::absolute(path)
        .map_err(|error| Unfit(format!("{}: {error}; name a directory", path.display())))
}

/// Whether `path`, which may not exist yet, lies in `dir` or is `dir`, which is without symbolic links.
pub fn lies_in(path: &Path, dir: &Path) -> bool {
    // First by its name alone: what is mounted on `dir` may be dead or hang.
    path.starts_with(dir) || resolved(path).starts_with(dir)
}

/// `path` with the part of it that exists resolved. The rest holds no symbolic links.
fn resolved(path: &Path) -> PathBuf {
    for there in path.ancestors() {
        let Ok(mut whole) = there.canonicalize() else {
            continue;
        };
        let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
        for part in rest.components() {
            match part {
                Component::ParentDir => {
                    whole.pop();
                }
                part => whole.push(part),
            }
        }
        return whole;
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_yet_lies_where_it_would_be_made() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let dir = root.join("mnt");
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink("mnt", root.join("link")).unwrap();
        for inside in ["mnt", "mnt/c", "mnt/c/d", "link", "link/c", "x/../mnt/c"] {
            assert!(lies_in(&root.join(inside), &dir), "{inside}");
        }
        for outside in ["", "c", "mnt2/c", "link/../c", "link/x/../../c"] {
            assert!(!lies_in(&root.join(outside), &dir), "{outside}");
        }
    }
}

//! A folder for one purpose, removed when it is no longer used, and also when the test process is
//! killed. `STREAM_NOTIFIER_KEEP` keeps it, to look at what a failed test left.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::guard::Guard;

pub struct Scratch {
    path: PathBuf,
    // Fields are dropped in the order of their declaration, and those of an owner before its
    // scratch where it declares that last: what writes here ends before the folder goes.
    _guard: Option<Guard>,
}

/// Whether what a test made is to be kept.
pub fn keep() -> bool {
    env::var_os("STREAM_NOTIFIER_KEEP").is_some()
}

impl Scratch {
    pub fn new(name: &str) -> Result<Self> {
        let path = TempDir::with_prefix(format!("stream-notifier-{name}-"))
            .context("cannot make a temporary folder")?
            .keep();
        let guard = if keep() {
            eprintln!("kept: {}", path.display());
            None
        } else {
            Some(Guard::start([Path::new("remove"), &path], [], |_| ())?)
        };
        Ok(Self { path, _guard: guard })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only this user may read, and gives its path.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;

        let path = self.path.join(name);
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

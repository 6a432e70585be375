//! Temporary folder, removed when it is dropped and when the test process is killed. With
//! `STREAM_NOTIFIER_KEEP` it is kept, to examine a failed test.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::guard::Guard;

pub struct Scratch {
    path: PathBuf,
    // Fields are dropped in the order of their declaration. Owners declare their scratch folder
    // last, so that processes which write to it end before it is removed.
    _guard: Option<Guard>,
}

/// Whether temporary folders and namespaces are kept after a test.
pub fn keep() -> bool {
    env::var_os("STREAM_NOTIFIER_KEEP").is_some()
}

impl Scratch {
    pub fn new(name: &str) -> Result<Self> {
        let path = TempDir::with_prefix(format!("stream-notifier-{name}-"))
            .context("cannot create a temporary folder")?
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

    /// Writes a file that only the current user can read, and returns its path.
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

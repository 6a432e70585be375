//! Data directory of local mode. A lock file makes sure that one process at a time uses it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::LocalError;

/// Data directory that this process has locked. Dropping the value releases the lock.
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock; never read.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, and locks it. Blocks on file system calls.
    pub fn lock(path: &Path) -> Result<Self, LocalError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| LocalError::DataDir { action, path, source }
        };
        fs::create_dir_all(path).map_err(failed("create the directory", path))?;
        let file = path.join("lock");
        let lock = File::create(&file).map_err(failed("create the file", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(LocalError::DataDirInUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed("lock the file", &file)(source)),
        }
    }

    pub fn tables_file(&self) -> PathBuf {
        self.path.join("tables.sqlite")
    }

    pub fn checkpoint_file(&self) -> PathBuf {
        self.path.join("checkpoint.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::Scratch;

    #[test]
    fn admits_one_process_at_a_time() {
        let scratch = Scratch::create();
        let path = scratch.path().join("new/er");
        let locked = DataDir::lock(&path).unwrap();
        assert!(matches!(DataDir::lock(&path), Err(LocalError::DataDirInUse(_))));
        drop(locked);
        DataDir::lock(&path).unwrap();
    }
}

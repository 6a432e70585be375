//! The data directory: one process at a time uses it.

use std::fs::{
    File, TryLockError, {self},
};
use std::path::{Path, PathBuf};

use super::error::LocalError;

/// A data directory that is this process's while the value lives.
pub struct DataDir {
    path: PathBuf,
    /// Held, not read.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, and takes it. Blocks for a moment.
    pub fn take(path: &Path) -> Result<Self, LocalError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| LocalError::DataDir { what, path, source }
        };
        fs::create_dir_all(path).map_err(failed("making the directory", path))?;
        let file = path.join("lock");
        let lock = File::create(&file).map_err(failed("creating the file", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(LocalError::DataDirInUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed("locking the file", &file)(source)),
        }
    }

    /// The file of the tables.
    pub fn tables(&self) -> PathBuf {
        self.path.join("tables.sqlite")
    }

    /// The file of a notifier's checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::Scratch;

    #[test]
    fn one_process_at_a_time() {
        let scratch = Scratch::new();
        let path = scratch.path().join("new/er");
        let taken = DataDir::take(&path).unwrap();
        assert!(matches!(DataDir::take(&path), Err(LocalError::DataDirInUse(_))));
        drop(taken);
        DataDir::take(&path).unwrap();
    }
}

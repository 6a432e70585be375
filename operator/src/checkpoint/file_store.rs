//! Stores the checkpoint of local mode in memory, or in one file of the data directory. A crash leaves
//! the old file or the new one, because a write syncs a temporary file and renames it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::store::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};

/// The store of local mode. Clones share it.
#[derive(Debug, Clone)]
pub struct FileStore(Arc<Mutex<Storage>>);

#[derive(Debug)]
enum Storage {
    Memory(Option<StoredFile>),
    File(PathBuf),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredFile {
    /// The number of writes.
    version: u64,
    data: BTreeMap<String, String>,
}

impl FileStore {
    /// A checkpoint in memory.
    pub fn in_memory() -> Self {
        Self(Arc::new(Mutex::new(Storage::Memory(None))))
    }

    /// A checkpoint in a file, which the first write creates.
    pub fn in_file(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Storage::File(path))))
    }

    /// Runs `work` on the storage, outside the threads of the async runtime.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Storage) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let storage = Arc::clone(&self.0);
        // The storage is consistent at any time, so a panic elsewhere does no harm.
        let work = move || work(&mut storage.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|stopped| Err(StoreError::Unknown(Box::new(stopped))))
    }
}

impl CheckpointStore for FileStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>> {
        Box::pin(async move {
            self.with(|place| {
                let kept = place.read().map_err(|error| StoreError::Unknown(Box::new(error)))?;
                Ok(kept.map(|kept| StoredCheckpoint { version: version(&kept), data: kept.data }))
            })
            .await
        })
    }

    fn save<'a>(
        &'a self,
        data: &'a BTreeMap<String, String>,
        expected: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>> {
        Box::pin(async move {
            let (data, expected) = (data.clone(), expected.cloned());
            self.with(move |place| {
                let unknown = |error| StoreError::Unknown(Box::new(error));
                let before = place.read().map_err(unknown)?;
                if before.as_ref().map(version) != expected {
                    return Err(StoreError::Conflict);
                }
                let kept =
                    StoredFile { version: before.map_or(1, |before| before.version + 1), data };
                let written = version(&kept);
                place.write(kept).map_err(unknown)?;
                Ok(written)
            })
            .await
        })
    }
}

fn version(kept: &StoredFile) -> ResourceVersion {
    ResourceVersion(kept.version.to_string())
}

impl Storage {
    fn read(&self) -> io::Result<Option<StoredFile>> {
        match self {
            Self::Memory(kept) => Ok(kept.clone()),
            Self::File(path) => match fs::read(path) {
                Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    fn write(&mut self, kept: StoredFile) -> io::Result<()> {
        match self {
            Self::Memory(place) => *place = Some(kept),
            Self::File(path) => replace(path, &serde_json::to_vec_pretty(&kept)?)?,
        }
        Ok(())
    }
}

/// Replaces a file. A crash leaves the old content or the new one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // The rename is durable once the directory is synced.
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::Scratch;

    fn data(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("format".to_owned(), text.to_owned())])
    }

    async fn fences(store: &FileStore) {
        assert_eq!(store.load().await.unwrap(), None);
        let first = store.save(&data("1"), None).await.unwrap();
        assert!(matches!(store.save(&data("x"), None).await, Err(StoreError::Conflict)));
        let second = store.save(&data("2"), Some(&first)).await.unwrap();
        assert!(matches!(store.save(&data("x"), Some(&first)).await, Err(StoreError::Conflict)));
        let stored = store.load().await.unwrap();
        assert_eq!(stored, Some(StoredCheckpoint { data: data("2"), version: second }));
    }

    #[tokio::test]
    async fn replaces_only_the_version_that_a_write_names() {
        fences(&FileStore::in_memory()).await;
        let scratch = Scratch::create();
        let path = scratch.path().join("checkpoint.json");
        let store = FileStore::in_file(path.clone());
        fences(&store).await;
        let reopened = FileStore::in_file(path).load().await.unwrap();
        assert_eq!(reopened.unwrap().data, data("2"));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn keeps_a_file_that_is_not_a_checkpoint() {
        let scratch = Scratch::create();
        let path = scratch.path().join("checkpoint.json");
        fs::write(&path, "{").unwrap();
        let store = FileStore::in_file(path.clone());
        assert!(matches!(store.load().await, Err(StoreError::Unknown(_))));
        assert!(matches!(store.save(&data("1"), None).await, Err(StoreError::Unknown(_))));
        assert_eq!(fs::read_to_string(path).unwrap(), "{");
    }
}

//! Planted faults: patches of the operator's sources, each of which breaks a guarantee. A check that
//! none of them sets off proves nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

/// One planted fault.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// Its name: that of its file in `tests/mutations`.
    pub name: String,
    /// What it does, in a line.
    pub fault: String,
    hunks: Vec<Hunk>,
}

/// One place that is changed. Found by its text, so that it stays where it is when lines move.
#[derive(Clone, Debug)]
struct Hunk {
    file: PathBuf,
    before: String,
    after: String,
}

/// Every planted fault of the sources at `root`, by name.
pub fn all(root: &Path) -> Result<Vec<Mutation>> {
    let folder = root.join("tests/mutations");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        paths.extend(Some(path).filter(|path| path.extension().is_some_and(|it| it == "patch")));
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Mutation> {
    let text = fs::read_to_string(path)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let fault = text.lines().next().unwrap_or_default().to_owned();
    let hunks = hunks(&text).with_context(|| name.clone())?;
    ensure!(!hunks.is_empty(), "{name} changes nothing");
    Ok(Mutation { name, fault, hunks })
}

/// Reads a unified diff; line numbers do not count.
fn hunks(text: &str) -> Result<Vec<Hunk>> {
    let mut file = None;
    let mut hunks: Vec<Hunk> = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with("--- ")) {
        if line.starts_with("--- ") {
            file = None;
        } else if let Some(path) = line.strip_prefix("+++ b/") {
            file = Some(PathBuf::from(path));
        } else if line.starts_with("@@") {
            let file = file.clone().context("a hunk before its file")?;
            hunks.push(Hunk { file, before: String::new(), after: String::new() });
        } else {
            let hunk = hunks.last_mut().context("a line before its hunk")?;
            let (kind, rest) = line.split_at(usize::from(!line.is_empty()));
            let is_before = kind != "+";
            let is_after = kind != "-";
            ensure!(["", " ", "+", "-"].contains(&kind), "{line:?} is no line of a patch");
            for (is_in, text) in [(is_before, &mut hunk.before), (is_after, &mut hunk.after)] {
                if is_in {
                    text.push_str(rest);
                    text.push('\n');
                }
            }
        }
    }
    Ok(hunks)
}

impl Mutation {
    /// The sources that it changes, as they are with it.
    pub fn apply(&self, root: &Path) -> Result<Vec<(PathBuf, String)>> {
        let mut changed: Vec<(PathBuf, String)> = Vec::new();
        for Hunk { file, before, after } in &self.hunks {
            let known = changed.iter().position(|(path, _)| path == file);
            let index = match known {
                Some(index) => index,
                None => {
                    let text = fs::read_to_string(root.join(file))
                        .with_context(|| format!("{}: {}", self.name, file.display()))?;
                    changed.push((file.clone(), text));
                    changed.len() - 1
                }
            };
            let text = &mut changed[index].1;
            match text.matches(before.as_str()).count() {
                1 => *text = text.replace(before.as_str(), after),
                times => bail!(
                    "{}: {} has this {times} times, not once:\n{before}",
                    self.name,
                    file.display()
                ),
            }
        }
        Ok(changed)
    }
}

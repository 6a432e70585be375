//! The layout of the operator's sources: which folder may import which, no circles, short files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use regex::Regex;
use stream_notifier::api::Reason;

/// Lines that a source file may have.
const MAX_LINES: usize = 450;

/// Files that a folder may have beside its sub-folders.
const MAX_FILES: usize = 12;

/// Changes of folder on a record's way from GetRecords to the checkpoint.
const MAX_FOLDER_CHANGES: usize = 14;

/// The path of a module from the crate's root.
type Module = Vec<String>;

fn repository() -> Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(tests.parent().context("the tests are in the repository")?.to_owned())
}

/// Every Rust file below a folder.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The operator's modules, each with its source without unit tests and comments.
struct Crate {
    sources: BTreeMap<Module, String>,
    /// What a module re-exports: module and name to the module that defines it.
    exports: BTreeMap<(Module, String), Module>,
}

impl Crate {
    fn read() -> Result<Self> {
        let root = repository()?.join("operator/src");
        let mut sources = BTreeMap::new();
        for file in rust_files(&root)? {
            let relative = file.strip_prefix(&root)?.with_extension("");
            let mut module: Module =
                relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if module.iter().any(|part| part == "tests") || module == ["main"] {
                continue;
            }
            if module.last().is_some_and(|last| last == "mod" || last == "lib") {
                module.pop();
            }
            sources.insert(module, without_tests_and_comments(&fs::read_to_string(&file)?)?);
        }
        let mut this = Self { sources, exports: BTreeMap::new() };
        for (module, source) in &this.sources {
            for path in uses(source, "pub use ")? {
                if let Some((name, path)) = this.absolute(module, &path).split_last() {
                    this.exports.insert((module.clone(), name.clone()), path.to_vec());
                }
            }
        }
        Ok(this)
    }

    /// A path as written in a module, from the crate's root; empty for other crates.
    fn absolute(&self, module: &Module, path: &[String]) -> Module {
        match path.first().map(String::as_str) {
            Some("crate") => path[1..].to_vec(),
            Some("self") => [module.as_slice(), &path[1..]].concat(),
            Some("super") => {
                let supers = path.iter().take_while(|part| *part == "super").count();
                [&module[..module.len().saturating_sub(supers)], &path[supers..]].concat()
            }
            _ => Module::new(),
        }
    }

    /// The module that defines what a path from the crate's root names.
    fn defining_module(&self, path: &[String]) -> Module {
        let known = |length: &usize| self.sources.contains_key(&path[..*length]);
        let length = (0..=path.len()).take_while(known).last().unwrap_or_default();
        let module = path[..length].to_vec();
        let export =
            path.get(length).and_then(|name| self.exports.get(&(module.clone(), name.clone())));
        match export {
            Some(origin) => self.defining_module(&[origin.as_slice(), &path[length..]].concat()),
            None => module,
        }
    }

    /// Every path into this crate that a module's source has, from the crate's root.
    fn paths(&self, module: &Module, source: &str) -> Result<Vec<Module>> {
        let inline = Regex::new(r"\b(?:crate|super|self)(?:::\w+)+")?;
        let statements = Regex::new(r"(?m)^(?:pub )?use [^;]*;")?;
        let code = statements.replace_all(source, "");
        let mut paths = uses(source, "(?:pub )?use ")?;
        paths.extend(inline.find_iter(&code).map(|path| split(path.as_str())));
        let paths = paths.iter().map(|path| self.absolute(module, path));
        Ok(paths.filter(|path| !path.is_empty()).collect())
    }
}

fn without_tests_and_comments(source: &str) -> Result<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    Ok(Regex::new(r"(?m)//.*$")?.replace_all(code, "").into_owned())
}

fn split(path: &str) -> Module {
    path.split("::").map(|part| part.trim().to_owned()).collect()
}

/// The leaves of the `use` statements that begin a line with `keyword`.
fn uses(source: &str, keyword: &str) -> Result<Vec<Module>> {
    let statements = Regex::new(&format!(r"(?m)^{keyword}([^;]*);"))?;
    let mut paths = Vec::new();
    for statement in statements.captures_iter(source) {
        expand("", &statement[1].replace('\n', " "), &mut paths);
    }
    Ok(paths.iter().map(|path| split(path)).collect())
}

/// Adds each leaf of a `use` tree.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default();
        if !name.is_empty() {
            paths.push(format!("{prefix}{name}"));
        }
        return;
    };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut start) = (0, 0);
    for (index, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&format!("{prefix}{head}"), &inner[start..index], paths);
                start = index + 1;
            }
            _ => {}
        }
    }
    expand(&format!("{prefix}{head}"), &inner[start..], paths);
}

/// The rows of the table "Allowed imports" of docs/architecture.md: a folder to what it may use.
fn allowed() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let page = fs::read_to_string(repository()?.join("docs/architecture.md"))?;
    let (_, section) = page.split_once("Allowed imports").context("the table's heading")?;
    let section = section.split("\n#").next().unwrap_or_default();
    let mut rules = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.split('|').skip(1).map(|cell| {
            cell.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches('/').to_owned())
        });
        let (folders, uses) = (cells.next().context("folders")?, cells.next().context("uses")?);
        let uses: BTreeSet<_> = uses.collect();
        for folder in folders {
            ensure!(rules.insert(folder.clone(), uses.clone()).is_none(), "{folder} has two rows");
        }
    }
    Ok(rules)
}

#[test]
fn allows_only_the_documented_imports() -> Result<()> {
    let (sources, rules) = (Crate::read()?, allowed()?);
    let mut wrong = BTreeSet::new();
    for (module, source) in &sources.sources {
        let Some(folder) = module.first().filter(|_| sources.sources.contains_key(&module[..1]))
        else {
            continue;
        };
        for path in sources.paths(module, source)? {
            let used = &path[0];
            let is_folder = repository()?.join("operator/src").join(used).is_dir();
            let is_allowed = rules.get(folder).is_some_and(|uses| uses.contains(used));
            if used != folder && is_folder && !is_allowed {
                wrong.insert(format!("{} uses {}", module.join("/"), path.join("::")));
            }
        }
    }
    ensure!(wrong.is_empty(), "not in docs/architecture.md, Allowed imports: {wrong:#?}");
    Ok(())
}

#[test]
fn finds_no_circle_of_imports() -> Result<()> {
    let sources = Crate::read()?;
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, source) in &sources.sources {
        let uses = sources.paths(module, source)?;
        let used = uses.iter().map(|path| sources.defining_module(path));
        imports.insert(
            module.clone(),
            used.filter(|used| used != module && !used.is_empty()).collect(),
        );
    }
    // What nothing imports, or what imports nothing, is in no circle.
    loop {
        let imported: BTreeSet<_> = imports.values().flatten().cloned().collect();
        let before = imports.len();
        imports.retain(|module, uses| imported.contains(module) && !uses.is_empty());
        let left: BTreeSet<_> = imports.keys().cloned().collect();
        for uses in imports.values_mut() {
            uses.retain(|used| left.contains(used));
        }
        if imports.len() == before {
            break;
        }
    }
    imports.retain(|_, uses| !uses.is_empty());
    let circles: Vec<_> = imports
        .iter()
        .map(|(module, uses)| {
            let uses: Vec<_> = uses.iter().map(|used| used.join("/")).collect();
            format!("{} -> {}", module.join("/"), uses.join(", "))
        })
        .collect();
    ensure!(circles.is_empty(), "files import each other in circles: {circles:#?}");
    Ok(())
}

#[test]
fn keeps_files_short_and_folders_small() -> Result<()> {
    let root = repository()?;
    let mut wrong = Vec::new();
    let mut folders: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for folder in ["operator/src", "tests/src", "tests/tests", "tests/benches"] {
        for file in rust_files(&root.join(folder))? {
            let lines = fs::read_to_string(&file)?.lines().count();
            let name = file.strip_prefix(&root)?.to_owned();
            if lines > MAX_LINES {
                wrong.push(format!("{} has {lines} lines", name.display()));
            }
            let is_in_operator = name.starts_with("operator");
            if is_in_operator && !file.ends_with("mod.rs") {
                *folders.entry(name.parent().context("a folder")?.to_owned()).or_default() += 1;
            }
        }
    }
    let crowded = folders.iter().filter(|(_, files)| **files > MAX_FILES);
    wrong.extend(crowded.map(|(folder, files)| format!("{} has {files} files", folder.display())));
    ensure!(wrong.is_empty(), "at most {MAX_LINES} lines and {MAX_FILES} files: {wrong:#?}");
    Ok(())
}

#[test]
fn every_reason_is_used() -> Result<()> {
    let sources = Crate::read()?.sources;
    let reasons = vec!["api".to_owned(), "reasons".to_owned()];
    let code: String =
        sources.iter().filter(|(module, _)| **module != reasons).map(|(_, code)| &**code).collect();
    let used: BTreeSet<&str> = Regex::new(r"\bReason::(\w+)")?
        .captures_iter(&code)
        .filter_map(|captures| captures.get(1).map(|name| name.as_str()))
        .collect();
    let unused: Vec<_> =
        Reason::ALL.iter().filter(|reason| !used.contains(reason.as_str())).collect();
    ensure!(unused.is_empty(), "no code reports {unused:?}");
    Ok(())
}

#[test]
fn lists_the_functions_that_a_record_passes() -> Result<()> {
    let root = repository()?;
    let page = fs::read_to_string(root.join("docs/architecture.md"))?;
    let (_, section) = page.split_once("### Path of a record").context("the heading")?;
    let section = section.split("\n#").next().unwrap_or_default();
    let mut folders = 0;
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        folders += 1;
        let mut names = row.split('`').skip(1).step_by(2);
        let folder = names.next().context("a folder")?;
        for function in names {
            let (file, name) = function.split_once("::").context("file::function")?;
            let path = root.join("operator/src").join(folder).join(format!("{file}.rs"));
            let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let is_defined = ["(", "<"].iter().any(|c| source.contains(&format!("fn {name}{c}")));
            ensure!(is_defined, "{folder}/{file}.rs has no function {name}");
        }
    }
    ensure!(folders > 5, "the list is empty");
    let changes = folders - 1;
    ensure!(changes <= MAX_FOLDER_CHANGES, "{changes} changes of folder");
    Ok(())
}

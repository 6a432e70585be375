//! Words that no text of the project uses: each has a plain technical word in its place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Words and phrases that are never right, in lower case.
const NEVER: [&str; 12] = [
    "told",
    "mend",
    "anew",
    "afresh",
    "in vain",
    "for ever",
    "all the same",
    "whoever",
    "deaf",
    "now and then",
    "is the case",
    "a fault of ours",
];

/// Folders without texts of the project.
const SKIPPED: [&str; 4] = ["target", ".git", "go.sum", "LICENSE"];

/// Endings of files with texts: documents, manifests, sources, scripts.
const ENDINGS: [&str; 11] =
    ["md", "rs", "yaml", "yml", "txt", "toml", "json", "html", "py", "sh", "tpl"];

fn texts(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if SKIPPED.contains(&&*name) {
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            texts(&path, files)?;
        } else if ENDINGS.contains(&&*ending) || ["Makefile", "run", "Dockerfile"].contains(&&*name)
        {
            files.push(path);
        }
    }
    Ok(())
}

/// The words and phrases of a text that are never right, each with its line. A phrase can begin on one
/// line and end on the next.
fn wrong_words(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let mut previous = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<String> = words(line).split_whitespace().map(str::to_owned).collect();
        let joined = [previous.as_slice(), words.as_slice()].concat();
        let is_new = |phrase: &&str| count(phrase, &joined) > count(phrase, &previous);
        found.extend(NEVER.into_iter().filter(is_new).map(|phrase| (index + 1, phrase)));
        previous = words;
    }
    found
}

/// How often a phrase occurs in a text.
fn count(phrase: &str, words: &[String]) -> usize {
    let phrase: Vec<&str> = phrase.split(' ').collect();
    words.windows(phrase.len()).filter(|window| **window == phrase[..]).count()
}

/// The words of a line, also those of identifiers, in lower case and one space apart.
fn words(line: &str) -> String {
    let mut text = String::from(" ");
    let mut was_lower = false;
    for c in line.chars() {
        if was_lower && c.is_uppercase() || !c.is_alphanumeric() && !text.ends_with(' ') {
            text.push(' ');
        }
        if c.is_alphanumeric() {
            text.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    text.push(' ');
    text
}

#[test]
fn finds_no_word_that_is_never_right() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    let mut files = Vec::new();
    texts(root, &mut files)?;
    ensure!(files.len() > 200, "only {} files have texts", files.len());
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with(file!())) {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let place = file.strip_prefix(root)?.display();
        let wrong = wrong_words(&text).into_iter();
        found.extend(wrong.map(|(line, word)| format!("{place}:{line}: {word}")));
    }
    ensure!(found.is_empty(), "{} words that are never right: {found:#?}", found.len());
    Ok(())
}

#[test]
fn finds_words_in_sentences_and_identifiers() {
    for (text, expected) in [
        ("Clients are told.", vec![(1, "told")]),
        ("fn has_told_lost_claim()", vec![(1, "told")]),
        ("isToldAgain", vec![(1, "told")]),
        ("In vain", vec![(1, "in vain")]),
        ("/// It waits in\n/// vain. Clients are told.", vec![(2, "told"), (2, "in vain")]),
        ("told\ntold", vec![(1, "told"), (2, "told")]),
        ("amend the commit, a deafening noise", vec![]),
    ] {
        assert_eq!(wrong_words(text), expected, "{text}");
    }
}

//! Every link of every page leads to a file and, where it names one, to a heading.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::markdown::{anchors, links, pages, read, repository};

/// Pages outside `docs/` whose links are followed too.
const MORE: [&str; 4] = ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];

/// What is wrong with a link.
fn problem(page: &str, target: &str) -> Result<Option<String>> {
    if target.starts_with("https://") {
        return Ok(None);
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let directory = Path::new(page).parent().unwrap_or(Path::new(""));
    let path = if file.is_empty() { Path::new(page).to_owned() } else { directory.join(file) };
    if !repository().join(&path).exists() {
        return Ok(Some(format!("no file {}", path.display())));
    }
    let Some(anchor) = anchor else { return Ok(None) };
    let text = read(&path.to_string_lossy())?;
    let has = anchors(&text).iter().any(|found| found == anchor);
    Ok((!has).then(|| format!("{} has no heading #{anchor}", path.display())))
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let mut problems = Vec::new();
    let mut seen = 0;
    for page in pages()?.into_iter().chain(MORE.map(str::to_owned)) {
        for (line, target) in links(&read(&page)?) {
            seen += 1;
            let found = problem(&page, &target)?;
            problems.extend(found.map(|reason| format!("{page}:{line}: the link ({target}): {reason}")));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    ensure!(seen > 50, "only {seen} links were found");
    Ok(())
}

#[test]
fn every_page_can_be_reached_from_the_readme() -> Result<()> {
    let mut known = vec!["README.md".to_owned()];
    let mut next = 0;
    while let Some(page) = known.get(next).cloned() {
        next += 1;
        let directory = Path::new(&page).parent().unwrap_or(Path::new("")).to_owned();
        for (_, target) in links(&read(&page)?) {
            let file = directory.join(target.split('#').next().unwrap_or_default());
            let name = file.to_string_lossy().replace("docs/../", "");
            let is_new = !known.contains(&name);
            if is_new && name.ends_with(".md") && !target.starts_with("https:") && !target.starts_with('#') {
                known.push(name);
            }
        }
    }
    for page in pages()? {
        ensure!(known.contains(&page), "no link leads to {page}");
    }
    Ok(())
}

#[test]
fn the_readme_is_short() -> Result<()> {
    let lines = read("README.md")?.lines().count();
    ensure!(lines <= 150, "README.md has {lines} lines; move details to docs/");
    Ok(())
}

#[test]
fn wrong_links_are_found() -> Result<()> {
    assert_eq!(problem("README.md", "docs/api.md")?, None);
    assert_eq!(problem("docs/api.md", "../README.md#install")?, None);
    assert_eq!(problem("README.md", "#install")?, None);
    for (target, reason) in [
        ("docs/none.md", "no file docs/none.md"),
        ("docs/api.md#none", "docs/api.md has no heading #none"),
        ("#none", "README.md has no heading #none"),
    ] {
        assert_eq!(problem("README.md", target)?.as_deref(), Some(reason));
    }
    Ok(())
}

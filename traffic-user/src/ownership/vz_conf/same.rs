//! Which files and ids belong to the same container.
//!
//! A file is named by a number or a UUID and may contain the other id. A container may have two files, one
//! under each id. But a copied file still contains the id of its original. Where files contradict each other,
//! their ids are not merged, because the traffic of two customers must never become one figure.

use std::collections::HashMap;

use traffic_model::ContainerId;

use crate::ownership::vz_conf::{Diagnostic, VzConf, VzContainer};

/// Keeps only the aliases that no file contradicts. All files of one container get the same id: the UUID.
pub(super) fn settle(all: &mut VzConf) {
    let ids: HashMap<ContainerId, usize> =
        all.containers.iter().enumerate().map(|(at, container)| (container.id.clone(), at)).collect();
    let mut claims: HashMap<ContainerId, Vec<usize>> = HashMap::new();
    for (at, container) in all.containers.iter().enumerate() {
        for alias in &container.aliases {
            claims.entry(alias.clone()).or_default().push(at);
        }
    }
    let mut kept: Vec<Vec<ContainerId>> = vec![Vec::new(); all.containers.len()];
    let mut ids_after: Vec<ContainerId> = all.containers.iter().map(|c| c.id.clone()).collect();
    for (at, container) in all.containers.iter().enumerate() {
        for alias in &container.aliases {
            let contradiction = if alias.is_uuid() == container.id.is_uuid() {
                Some(format!(
                    "it contains the id {alias}, which is ignored: the id is {}, from the file's name",
                    container.id
                ))
            } else if let Some(other) =
                container.aliases.iter().find(|&other| other != alias && other.is_uuid() == alias.is_uuid())
            {
                Some(format!("it contains both {alias} and {other}; neither is used"))
            } else if let Some(&other) = claims[alias].iter().find(|&&other| other != at) {
                let other = all.containers[other].path.display();
                Some(format!("{other} contains {alias} too; it is used for neither"))
            } else {
                let namesake = ids.get(alias).map(|&other| &all.containers[other]);
                namesake.filter(|namesake| denies(namesake, &container.id)).map(|namesake| {
                    format!(
                        "it contains the id {alias}, which is not used: {} contradicts it",
                        namesake.path.display()
                    )
                })
            };
            match contradiction {
                Some(message) => {
                    let path = container.path.clone();
                    all.diagnostics.push(Diagnostic { path, line: 0, message });
                }
                None => {
                    if ids.contains_key(alias) && alias.is_uuid() {
                        ids_after[at] = alias.clone();
                        kept[at].push(container.id.clone());
                    } else {
                        kept[at].push(alias.clone());
                    }
                }
            }
        }
    }
    for (container, (id, aliases)) in all.containers.iter_mut().zip(ids_after.into_iter().zip(kept)) {
        container.id = id;
        container.aliases = aliases;
    }
}

/// Whether a file contains another id of the same kind.
fn denies(container: &VzContainer, id: &ContainerId) -> bool {
    container.aliases.iter().any(|alias| alias.is_uuid() == id.is_uuid() && alias != id)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;

    const U: &str = "2b2a3d9c-6f2e-4a77-9c15-0a1b2c3d4e5f";
    const V: &str = "99999999-6f2e-4a77-9c15-0a1b2c3d4e5f";

    /// The ids of the files with their aliases, and the number of diagnostics.
    fn settled(files: &[(&str, String)]) -> (Vec<String>, usize) {
        let mut all = VzConf::default();
        for (name, text) in files {
            let one = parse(Path::new(&format!("{name}.conf")), text);
            all.containers.extend(one.containers);
        }
        settle(&mut all);
        let shown = all.containers.iter().map(|container| {
            let aliases: Vec<_> = container.aliases.iter().map(ContainerId::as_str).collect();
            format!("{} ({})", container.id, aliases.join(" "))
        });
        (shown.collect(), all.diagnostics.len())
    }

    #[test]
    fn two_files_of_one_container_are_merged() {
        let veid = "VEID=101\n".to_owned();
        let uuid = format!("UUID={U}\n");
        let one = (vec![format!("{U} (101)"), format!("{U} (101)")], 0);
        assert_eq!(settled(&[("101", uuid.clone()), (U, veid.clone())]), one);
        assert_eq!(
            settled(&[("101", uuid.clone()), (U, String::new())]),
            (vec![format!("{U} (101)"), format!("{U} ()")], 0)
        );
        assert_eq!(
            settled(&[("101", String::new()), (U, veid)]),
            (vec!["101 ()".to_owned(), format!("{U} (101)")], 0)
        );
        assert_eq!(settled(&[("101", uuid)]), (vec![format!("101 ({U})")], 0));
    }

    #[test]
    fn a_copied_file_is_not_merged_with_its_original() {
        // 102.conf is a copy of 101.conf.
        let uuid = format!("UUID={U}\n");
        let (ids, diagnostics) = settled(&[("101", uuid.clone()), ("102", uuid.clone())]);
        assert_eq!((ids, diagnostics), (vec!["101 ()".to_owned(), "102 ()".to_owned()], 2));
        // The original has a file under its UUID, which contains 101.
        let (ids, diagnostics) = settled(&[("102", uuid), (U, "VEID=101\n".to_owned())]);
        assert_eq!((ids, diagnostics), (vec!["102 ()".to_owned(), format!("{U} (101)")], 1));
        // The file's name decides.
        assert_eq!(settled(&[("102", "VEID=101\n".to_owned())]), (vec!["102 ()".to_owned()], 1));
        // A file with two numbers belongs to neither. If a key is repeated, the last one counts, as in a
        // shell.
        let (ids, diagnostics) = settled(&[("102", String::new()), (U, "VEID=101\nCTID=102\n".to_owned())]);
        assert_eq!((ids, diagnostics), (vec!["102 ()".to_owned(), format!("{U} ()")], 2));
        let (ids, diagnostics) = settled(&[(U, "VEID=101\nVEID=102\n".to_owned())]);
        assert_eq!((ids, diagnostics), (vec![format!("{U} (102)")], 0));
        // Two machines with the same number.
        let (ids, diagnostics) = settled(&[(U, "VEID=7\n".to_owned()), (V, "VEID=7\n".to_owned())]);
        assert_eq!((ids, diagnostics), (vec![format!("{U} ()"), format!("{V} ()")], 2));
    }
}

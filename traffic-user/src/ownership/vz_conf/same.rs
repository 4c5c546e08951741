//! Which files and ids are of one container.
//!
//! A file has a number or a UUID for its name and may tell the other inside. Two files can be of one container, one under
//! each. A copied file, though, still tells the id of the one it was copied from: where files contradict each other
//! nothing is taken for the same, since two customers' traffic must never be one figure.

use std::collections::HashMap;

use traffic_model::ContainerId;

use crate::ownership::vz_conf::{Diagnostic, VzConf, VzContainer};

/// Leaves only those aliases that no file contradicts, and gives the files of one container one id: the UUID.
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
            let complaint = if alias.is_uuid() == container.id.is_uuid() {
                Some(format!("it says that it is {alias}: its name, {}, counts", container.id))
            } else if let Some(other) =
                container.aliases.iter().find(|&other| other != alias && other.is_uuid() == alias.is_uuid())
            {
                Some(format!("it says {alias} and {other}: neither is taken for it"))
            } else if let Some(&other) = claims[alias].iter().find(|&&other| other != at) {
                let other = all.containers[other].path.display();
                Some(format!("{other} says {alias} too: neither is taken for it"))
            } else {
                let namesake = ids.get(alias).map(|&other| &all.containers[other]);
                namesake.filter(|namesake| denies(namesake, &container.id)).map(|namesake| {
                    format!("it says that it is {alias}, and {} says otherwise", namesake.path.display())
                })
            };
            match complaint {
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

/// Whether a file tells another id of this one's kind.
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

    /// The ids of the files, their aliases, and how many complaints.
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
    fn the_two_files_of_one_container_are_one() {
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
    fn a_copied_file_is_not_taken_for_the_original() {
        // 102 was made from a copy of 101.
        let uuid = format!("UUID={U}\n");
        let (ids, complaints) = settled(&[("101", uuid.clone()), ("102", uuid.clone())]);
        assert_eq!((ids, complaints), (vec!["101 ()".to_owned(), "102 ()".to_owned()], 2));
        // The original has a file under its UUID, which says 101.
        let (ids, complaints) = settled(&[("102", uuid), (U, "VEID=101\n".to_owned())]);
        assert_eq!((ids, complaints), (vec!["102 ()".to_owned(), format!("{U} (101)")], 1));
        // The name of the file counts.
        assert_eq!(settled(&[("102", "VEID=101\n".to_owned())]), (vec!["102 ()".to_owned()], 1));
        // A file that names two is of neither; where a key stands twice, the later counts, as in a shell.
        let (ids, complaints) = settled(&[("102", String::new()), (U, "VEID=101\nCTID=102\n".to_owned())]);
        assert_eq!((ids, complaints), (vec!["102 ()".to_owned(), format!("{U} ()")], 2));
        let (ids, complaints) = settled(&[(U, "VEID=101\nVEID=102\n".to_owned())]);
        assert_eq!((ids, complaints), (vec![format!("{U} (102)")], 0));
        // Two machines that say the same number.
        let (ids, complaints) = settled(&[(U, "VEID=7\n".to_owned()), (V, "VEID=7\n".to_owned())]);
        assert_eq!((ids, complaints), (vec![format!("{U} ()"), format!("{V} ()")], 2));
    }
}

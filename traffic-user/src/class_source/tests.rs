//! Files, the gate, and what is known about the table in force.

use traffic_classes::ClassOrder;

use super::*;

struct Node {
    directory: tempfile::TempDir,
    config: Config,
}

impl Node {
    fn new(classes: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("classes");
        fs::write(&path, classes).unwrap();
        let config = Config::parse(&format!("class_file = {path:?}\n"), Path::new("t.toml")).unwrap();
        Self { directory, config }
    }

    fn difference(&self, in_force: &ClassTable) -> Option<String> {
        let state = self.directory.path().join("state");
        let known = || Known::of_test(in_force, &state);
        difference_from_table_in_force(&self.config, &state, &in_force.hash(), known).map(|it| it.to_string())
    }
}

fn table(text: &str) -> ClassTable {
    traffic_classes::compile(&traffic_classes::parse(text.as_bytes()).entries, ClassOrder::Virtuozzo)
}

#[test]
fn a_table_loaded_from_another_file_is_reported() {
    // What the configured file adds to the other one.
    let node = Node::new("1 0.0.0.0/0\n2 10.0.0.0/8\n");
    let (configured, other) = (table("1 0.0.0.0/0\n2 10.0.0.0/8\n"), table("2 10.0.0.0/8\n"));
    let path = node.directory.path().join("classes").display().to_string();
    assert_eq!(node.difference(&configured), None);
    assert_eq!(
        node.difference(&other),
        Some(format!(
            "the class table in force differs from the class file {path}; `trafctl classes load` loads \
             that"
        ))
    );
    let state = node.directory.path().join("state");
    let from = |path: &str, table: &ClassTable, by_name| {
        let order = ClassOrder::Virtuozzo;
        let origin = Origin { path: Some(path.into()), by_name, order, bytes: Vec::new() };
        keep(&state, &Loaded { table: table.clone(), origin, file: ClassFile::default() });
    };
    from("/nonexistent/new_classes", &other, true);
    assert_eq!(
        node.difference(&other),
        Some(format!(
            "the class table in force was loaded from /nonexistent/new_classes, not from the class file \
             {path}; `trafctl classes load` loads that"
        ))
    );
    // The record belongs to one table.
    assert!(
        node.difference(&table("1 0.0.0.0/0\n")).unwrap().starts_with("the class table in force differs")
    );
    from(&path, &other, false);
    assert!(node.difference(&other).unwrap().starts_with("the class table in force differs"));
}

/// As recorded, so that neither the file is parsed nor the table is read.
#[test]
fn the_file_that_was_loaded_makes_no_difference() {
    let node = Node::new("1 0.0.0.0/0\n2 10.0.0.0/8\n");
    let state = node.directory.path().join("state");
    let loaded = compiled(&node.config, Wanted::Configured).unwrap();
    keep(&state, &loaded);
    let hash = loaded.table.hash();
    let unread = || -> Known { panic!("the table in force was read") };
    assert_eq!(difference_from_table_in_force(&node.config, &state, &hash, unread), None);
    // Other bytes may be the same table.
    let path = node.directory.path().join("classes");
    fs::write(&path, "# new\n1 0.0.0.0/0\n2 10.0.0.0/8\n").unwrap();
    assert_eq!(difference_from_table_in_force(&node.config, &state, &hash, unread), None);
    fs::write(&path, "1 0.0.0.0/0\n3 10.0.0.0/8\n").unwrap();
    assert!(node.difference(&loaded.table).is_some());
}

#[test]
fn a_configured_file_that_is_refused_is_reported() {
    let node = Node::new("300 0.0.0.0/0\n");
    let difference = node.difference(&table("1 0.0.0.0/0\n")).unwrap();
    assert!(difference.contains("which is not usable: line 1: refused: class 300"), "{difference}");
}

#[test]
fn refused_files_are_reported_in_few_lines() {
    let message = |text: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("classes");
        fs::write(&path, text).unwrap();
        format!("{:#}", read(&path).unwrap_err())
    };
    let many = message("x\n".repeat(4000).as_bytes());
    assert_eq!(many.lines().count(), 1 + SHOWN_PROBLEMS + 1, "{many}");
    assert!(many.contains("... and 3980 more; `trafctl classes check --format json /"), "{many}");
    let binary = message(&[0x7f, b'E', b'L', b'F', 0, 0, 0, b'\n', 1, 2, 0]);
    assert_eq!(binary.lines().count(), 1, "{binary}");
    assert!(binary.contains("looks binary"), "{binary}");
}

/// The configured file against what is in force.
fn admitted(node: &Node, in_force: &ClassTable) -> Result<ClassTable, String> {
    let state = node.directory.path().join("state");
    let known = Known::of_test(in_force, &state);
    let loaded = compiled(&node.config, Wanted::Configured).map_err(|error| format!("{error:#}"))?;
    loaded.admit(&known, node.config.hold_limit, Word::None).map(|it| it.table).map_err(|it| it.to_string())
}

#[test]
fn the_gate_holds_what_looks_cut_short() {
    let whole = "1 0.0.0.0/0\n2 10.1.0.0/16\n2 10.2.0.0/16\n2 10.3.0.0/16\n2 10.4.0.0/16\n2 10.100.0.0/16\n";
    let node = Node::new(&whole[..whole.len() - 2]);
    let path = node.directory.path().join("classes").display().to_string();
    assert_eq!(
        admitted(&node, &table(whole)),
        Err(format!(
            "the class file {path} is held: it looks cut short: line 6, the last one, has no line feed and \
             reads 10.100.0.0/1, which has host bits set; if it is right, `trafctl classes load --yes` loads it"
        ))
    );
    let loaded = compiled(&node.config, Wanted::Configured).unwrap();
    assert!(loaded.admit(&Known::default(), node.config.hold_limit, Word::Given).is_ok());
    // `status` reports it as well.
    assert!(node.difference(&table(whole)).unwrap().contains("which is not usable: the class file"));

    let node = Node::new("1 0.0.0.0/0\n2 10.1.0.0/16\n");
    assert!(admitted(&node, &table(whole)).unwrap_err().contains("4 of the 6 prefixes in force are missing"));
    assert!(admitted(&node, &table("")).is_ok());
    let node = Node::new("# nothing\n");
    assert!(admitted(&node, &table(whole)).unwrap_err().contains("puts every address into class 0"));
    assert!(admitted(&node, &table("")).unwrap_err().contains("puts every address into class 0"));
}

#[test]
fn a_file_that_gives_the_table_in_force_is_never_held() {
    let node = Node::new("1 0.0.0.0/0\n2 10.100.0.0/9");
    assert!(admitted(&node, &table("1 0.0.0.0/0\n")).is_err());
    assert!(admitted(&node, &table("1 0.0.0.0/0\n2 10.0.0.0/9\n")).is_ok());
}

#[test]
fn the_record_knows_the_file_the_order_and_the_names_of_its_table() {
    let node = Node::new("# name 2 = \"UA-IX\"\n2 10.0.0.0/8 # x\n1 0.0.0.0/0\n");
    let state = node.directory.path().join("state");
    let path = node.directory.path().join("classes");
    let loaded = compiled(&node.config, Wanted::Named(&path, ClassOrder::LastLine)).unwrap();
    keep(&state, &loaded);
    let record = record_of(&state, &loaded.table.hash()).unwrap();
    assert_eq!((record.file.as_deref(), record.order), (Some(&*path), Some(ClassOrder::LastLine)));
    assert_eq!(record.bytes(&state).unwrap(), loaded.origin.bytes);
    assert_eq!(class_names(&node.config, &state)[&2], "UA-IX");
    assert!(record_of(&state, &[0; 32]).is_none());
    // The copy belongs to the record, and a record of the version before is still read.
    fs::write(state.join("class-file"), "1 ::/0\n").unwrap();
    assert_eq!(record.bytes(&state), None);
    let hash = traffic_model::hex(&loaded.table.hash());
    let old = format!("{{\"version\": 1, \"file\": \"/old\", \"table_hash\": \"{hash}\"}}");
    fs::write(state.join("class-table.json"), old).unwrap();
    let record = record_of(&state, &loaded.table.hash()).unwrap();
    assert_eq!((record.by_name, record.order, record.file), (true, None, Some("/old".into())));
    // Another order than the configured one is named.
    keep(&state, &loaded);
    let difference = node.difference(&loaded.table).unwrap();
    assert!(difference.contains(", and under the order last-line; `trafctl classes load`"), "{difference}");
}

/// Every cut of a valid file is refused, held, or gives the table of the whole, by the gate itself.
#[test]
fn no_cut_of_the_file_in_force_passes_the_gate() {
    let whole: String =
        (0..40).map(|n| format!("{} {}.{n}.0.0/{} # {n}\n", n % 3 + 1, 128 + n % 2, 16 + n % 3)).collect();
    let node = Node::new(&whole);
    let state = node.directory.path().join("state");
    let loaded = compiled(&node.config, Wanted::Configured).unwrap();
    keep(&state, &loaded);
    let path = node.directory.path().join("classes");
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let passed = admitted(&node, &loaded.table);
        assert!(passed.is_err() || passed.unwrap().hash() == loaded.table.hash(), "{end}");
    }
}

#[test]
fn a_table_that_nobody_asked_for_is_reported_whatever_the_file_says() {
    let path = |node: &Node| node.directory.path().join("classes").display().to_string();
    // The empty file gives the same table.
    for text in ["", "# moved\n"] {
        let node = Node::new(text);
        let found = node.difference(&table("")).unwrap();
        let start = "no class file is in force, so all traffic is counted in class 0, which is not billed: ";
        assert!(found.starts_with(start) && found.contains("is not usable: the class file"), "{found}");
    }
    // A corrected file is not in force yet.
    let node = Node::new("1 0.0.0.0/0\n");
    let found = node.difference(&table("")).unwrap();
    let end = format!("`trafctl attach` and `trafctl classes load` load the class file {}", path(&node));
    assert!(found.contains("which is not billed: ") && found.ends_with(&end), "{found}");
    // Unless somebody asked for it.
    let state = node.directory.path().join("state");
    keep(&state, &Loaded::nothing(ClassOrder::Virtuozzo));
    let found = node.difference(&table("")).unwrap();
    assert!(found.starts_with("the class table in force differs from"), "{found}");
    // That word does not hold for counters that begin without a usable file.
    fs::write(node.directory.path().join("classes"), "# moved\n").unwrap();
    assert!(table_for_new_counters(&node.config, &state).1.is_some());
    let found = node.difference(&table("")).unwrap();
    assert!(found.starts_with("no class file is in force"), "{found}");
}

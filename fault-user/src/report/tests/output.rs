//! Files and standard output.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use crate::{exit::Class, report::output::Destination};

#[test]
fn a_dash_is_standard_output() {
    assert_eq!(Destination::from(PathBuf::from("-")), Destination::Stdout);
    assert_eq!(Destination::from(PathBuf::from("./-")), Destination::File("./-".into()));
}

#[test]
fn a_file_is_replaced_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    let destination = Destination::File(path.clone());
    destination.check("the report").unwrap();
    assert!(!path.exists(), "a check leaves nothing behind");
    destination.write("the report", b"old").unwrap();
    let reader = fs::File::open(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    destination.write("the report", b"new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
    assert_eq!(
        std::io::read_to_string(reader).unwrap(),
        "old",
        "who had it open sees the old one to its end"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_link_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "old").unwrap();
    symlink(&file, &link).unwrap();
    Destination::File(link.clone()).write("the report", b"new").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
}

#[test]
fn what_is_no_file_is_written_to() {
    Destination::File("/dev/null".into()).write("the report", b"new").unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

#[test]
fn where_nothing_can_be_written_the_check_says_so() {
    let error = Destination::File("/nonexistent/report.json".into()).check("the report").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot write the report to /nonexistent/report.json: No such file or directory (os error 2)"
    );
    assert_eq!(error.class(), Class::Usage);
    let directory = tempfile::tempdir().unwrap();
    let error = Destination::File(directory.path().into()).check("the events").unwrap_err();
    assert!(error.to_string().ends_with("Is a directory (os error 21)"), "{error}");
}

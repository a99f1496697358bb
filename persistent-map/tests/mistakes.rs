//! Common mistakes, and what the compiler says of them: each program in `mistakes/` is refused with the lines that it
//! begins with (`//~ ..`).
#![cfg(feature = "in_memory")]

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn the_compiler_says_what_to_do_about_common_mistakes() {
    let facade = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mistakes");
    let programs = package.join("src/bin");
    let _ = fs::remove_dir_all(&programs);
    fs::create_dir_all(&programs).unwrap();
    fs::copy(facade.join("../Cargo.lock"), package.join("Cargo.lock")).unwrap();
    let manifest = format!(
        "[package]\nname = \"mistakes\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         persistent-map = {{ path = {facade:?}, default-features = false, features = [\"in_memory\"] }}\n\
         serde = {{ version = \"1\", features = [\"derive\"] }}\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();

    let mut tried = 0;
    for program in fs::read_dir(facade.join("tests/mistakes")).unwrap() {
        let program = program.unwrap().path();
        fs::copy(&program, programs.join(program.file_name().unwrap())).unwrap();
        let name = program.file_stem().unwrap().to_str().unwrap();
        let checked = Command::new(env!("CARGO"))
            .args(["check", "--offline", "--quiet", "--bin", name])
            .arg("--target-dir")
            .arg(target)
            .current_dir(&package)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(!checked.status.success(), "{name} compiles");
        let source = fs::read_to_string(&program).unwrap();
        let expected = source.lines().filter_map(|line| line.strip_prefix("//~ "));
        for line in expected {
            assert!(said.contains(line), "{name}: `{line}` is missing:\n{said}");
            tried += 1;
        }
    }
    assert!(tried >= 8, "only {tried} lines were compared");
}

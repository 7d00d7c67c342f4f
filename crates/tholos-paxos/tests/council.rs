//! What `cargo run -p tholos-paxos --example council` prints.

#[path = "../examples/council.rs"]
mod council;

#[test]
fn the_example_tells_this_story() {
    let story = council::story();
    let path = "tests/golden/council.txt";
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(path, &story).expect("the story can be written");
    }
    let expected = std::fs::read_to_string(path).expect("the story can be read");
    assert_eq!(story, expected, "UPDATE_GOLDEN=1 rewrites {path}");
}

//! Permission is a type: handing a record to the wrong adapter, or forging a permit, does not compile.

#[test]
fn permits_can_neither_be_forged_nor_misused() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/permits/*.rs");
}

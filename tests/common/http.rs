//! Requests in plain HTTP to this machine.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

/// The answer to a request in plain text: its code, and its body.
pub fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    // Of HTTP/1.0 no answer comes in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What `/status` of a gateway says of one thing that is looked at.
pub fn check(address: &str, name: &str) -> Value {
    let (code, body) = get(address, "/status");
    assert_eq!(code, 200, "{body}");
    let status: Value = serde_json::from_str(&body).unwrap();
    let checks = status["checks"].as_array().unwrap().clone();
    checks.into_iter().find(|check| check["check"] == name).unwrap()
}

/// A text as a part of a query.
pub fn encoded(text: &str) -> String {
    let each = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    each.collect()
}

//! Models for tests, made byte by byte.

/// A field of a number.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A field of bytes, a text or a message.
pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

pub(crate) fn tensor(name: &str, dims: &[i64], data_type: i64, raw: &[u8]) -> Vec<u8> {
    let dims = dims.iter().flat_map(|&length| number(1, length as u64)).collect();
    [dims, number(2, data_type as u64), bytes(8, name.as_bytes()), bytes(9, raw)].concat()
}

pub(crate) fn node(operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut node: Vec<u8> = inputs.iter().flat_map(|input| bytes(1, input.as_bytes())).collect();
    node.extend(outputs.iter().flat_map(|output| bytes(2, output.as_bytes())));
    node.extend(bytes(4, operator.as_bytes()));
    node.extend(attributes.iter().flat_map(|attribute| bytes(5, attribute)));
    node
}

/// An input or output. A length of -1 is that of the records.
pub(crate) fn value(name: &str, data_type: u64, shape: &[i64]) -> Vec<u8> {
    let lengths = shape.iter().flat_map(|&length| match u64::try_from(length) {
        Ok(length) => bytes(1, &number(1, length)),
        Err(_) => bytes(1, &bytes(2, b"records")),
    });
    let shape: Vec<u8> = lengths.collect();
    let of_tensor = [number(1, data_type), bytes(2, &shape)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &of_tensor))].concat()
}

pub(crate) fn graph(nodes: &[Vec<u8>], initialisers: &[Vec<u8>], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Vec<u8> {
    let mut graph: Vec<u8> = nodes.iter().flat_map(|node| bytes(1, node)).collect();
    graph.extend(bytes(2, b"graph"));
    graph.extend(initialisers.iter().flat_map(|tensor| bytes(5, tensor)));
    graph.extend(inputs.iter().flat_map(|input| bytes(11, input)));
    graph.extend(outputs.iter().flat_map(|output| bytes(12, output)));
    graph
}

/// A model of operator set 17.
pub(crate) fn model(graph: &[u8]) -> Vec<u8> {
    let operators = [bytes(1, b""), number(2, 17)].concat();
    [number(1, 8), bytes(7, graph), bytes(8, &operators)].concat()
}

/// `y = x`, of one column.
pub(crate) fn identity() -> Vec<u8> {
    of_one(&[node("Identity", &["x"], &["y"], &[])], &[])
}

/// A model from `x` to `y`, of one column of floats each.
pub(crate) fn of_one(nodes: &[Vec<u8>], initialisers: &[Vec<u8>]) -> Vec<u8> {
    model(&graph(nodes, initialisers, &[value("x", 1, &[-1, 1])], &[value("y", 1, &[-1, 1])]))
}

/// A loop without an end that changes nothing: `y = x`, never.
pub(crate) fn endless() -> Vec<u8> {
    let inner = graph(
        &[node("Identity", &["going"], &["goes_on"], &[]), node("Add", &["v", "v"], &["w"], &[])],
        &[],
        &[value("i", 7, &[]), value("going", 9, &[]), value("v", 1, &[-1, 1])],
        &[value("goes_on", 9, &[]), value("w", 1, &[-1, 1])],
    );
    let body = [bytes(1, b"body"), bytes(6, &inner), number(20, 5)].concat();
    of_one(&[node("Loop", &["", "true", "x"], &["y"], &[body])], &[tensor("true", &[], 9, &[1])])
}

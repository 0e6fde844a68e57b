//! The matrix against one that is looked up cell by cell, on a matrix full of leftovers.

use std::sync::Arc;

use arrow_array::{BooleanArray, Float32Array, Float64Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;

const LEFTOVER: f64 = 77.0;

fn columns(rows: usize) -> impl Strategy<Value = Vec<ArrayRef>> {
    let doubles = || prop::collection::vec(prop::option::weighted(0.9, -1e3..1e3_f64), rows);
    let words = prop::collection::vec(prop::option::weighted(0.9, "[a-d]"), rows);
    let integers = prop::collection::vec(prop::option::weighted(0.9, -1_000..1_000_i64), rows);
    let bools = prop::collection::vec(prop::option::weighted(0.9, any::<bool>()), rows);
    (prop::collection::vec(doubles(), 5), words, integers, bools).prop_map(|(doubles, words, integers, bools)| {
        let singles = doubles[0].iter().map(|value| value.map(|value| value as f32));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(words)),
            Arc::new(Int64Array::from(integers)),
            Arc::new(BooleanArray::from(bools)),
            Arc::new(singles.collect::<Float32Array>()),
        ];
        // The first has no nulls.
        columns.push(Arc::new(Float64Array::from_iter_values(doubles[0].iter().map(|value| value.unwrap_or(1.0)))));
        columns.extend(doubles.into_iter().skip(1).map(|column| Arc::new(Float64Array::from(column)) as ArrayRef));
        columns
    })
}

/// Features of nine columns and of one that is not there.
fn features() -> impl Strategy<Value = Vec<Feature>> {
    let vocabulary = || vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let feature = (0..20_usize, any::<bool>()).prop_map(move |(choice, one_hot)| match choice {
        0 if one_hot => Feature { column: 0, encoding: Encoding::OneHot(vocabulary()) },
        0 => Feature { column: 0, encoding: Encoding::Index(vocabulary()) },
        1..10 => Feature { column: choice.min(9), encoding: Encoding::Number },
        _ => Feature { column: 4 + choice % 5, encoding: Encoding::Number },
    });
    prop::collection::vec(feature, 1..12)
}

/// The cells of one feature of one record, as the model's declaration says.
fn cells(feature: &Feature, columns: &[ArrayRef], row: usize) -> Vec<f64> {
    let Some(column) = columns.get(feature.column) else { return vec![f64::NAN] };
    let word = || column.as_string_opt::<i32>().filter(|words| words.is_valid(row)).map(|words| words.value(row));
    let number = || match column.data_type() {
        _ if column.is_null(row) => f64::NAN,
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row) as f64,
        DataType::Boolean => f64::from(u8::from(column.as_boolean().value(row))),
        _ => f64::NAN,
    };
    match &feature.encoding {
        Encoding::Number => vec![number()],
        Encoding::Index(words) => {
            vec![words.iter().position(|known| Some(known.as_str()) == word()).map_or(-1.0, |position| position as f64)]
        }
        Encoding::OneHot(words) => {
            words.iter().map(|known| if Some(known.as_str()) == word() { 1.0 } else { 0.0 }).collect()
        }
    }
}

proptest! {
    #[test]
    fn the_matrix_is_what_the_declaration_says(
        (features, columns) in (features(), (0..23_usize).prop_flat_map(columns)),
    ) {
        let rows = columns[0].len();
        let width = features.iter().map(Feature::width).sum();
        let mut expected = Vec::new();
        for row in 0..rows {
            for feature in &features {
                expected.extend(cells(feature, &columns, row));
            }
        }
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();

        let mut doubles = vec![LEFTOVER; rows * width];
        fill_part(&mut doubles, width, &features, &columns);
        prop_assert_eq!(bits(&doubles), bits(&expected));

        let mut singles = vec![LEFTOVER as f32; rows * width];
        fill_part(&mut singles, width, &features, &columns);
        let expected_singles: Vec<u32> = expected.iter().map(|value| (*value as f32).to_bits()).collect();
        prop_assert_eq!(singles.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), expected_singles);

        let mut integers = vec![LEFTOVER as i64; rows * width];
        fill_part(&mut integers, width, &features, &columns);
        prop_assert_eq!(integers, expected.iter().map(|value| *value as i64).collect::<Vec<_>>());
    }
}

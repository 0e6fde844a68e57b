//! Files and messages of every format hold the same cells, byte for byte the same each time, and take fewer bytes.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow_cast::cast;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;

use super::*;
use crate::domain::dataset::{CHANGE, CONTRIBUTORS};
use crate::domain::name::DatasetName;
use crate::domain::policy::receiver::{self, Receiver, Table};
use crate::domain::policy::{
    By, Changes, DEGRADED, Digest, LastTold, RELEASE_COLUMNS, Reduction, ReleasedParts, SINCE, Step, Top,
};

const COUNTRIES: [&str; 4] = ["DE", "F\u{e9}", "IE", "other"];

/// A release of a window of a minute, with as many cells as countries and channels.
fn released(window: i64) -> Released {
    released_with(window, false)
}

/// The same, and of some cells how many contributors they have at least, if that is told.
fn released_with(window: i64, tells_contributors: bool) -> Released {
    let rows = COUNTRIES.len() * 8;
    let id = format!("{window:032x}");
    let (start, end) = (window * 60_000_000, (window + 1) * 60_000_000);
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows])) };
    let time =
        |time: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(time, rows).with_timezone("UTC")) };
    let countries = (0..rows).map(|row| Some(COUNTRIES[row % COUNTRIES.len()])).collect::<StringArray>();
    let mut bins = ListBuilder::new(Int64Builder::new());
    for row in 0..rows as i64 {
        (0..5).for_each(|bin| bins.values().append_option((bin != 3).then_some(row * bin)));
        bins.append(row != 2);
    }
    let means = (0..rows).map(|row| (row % 7 != 0).then_some((row as f64 + window as f64) / 7.0));
    let contributors = (0..rows).map(|row| (row % 5 != 0).then_some([10, 20, 1_000][row % 3]));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("release", text(&id)),
        ("gateway", text("eu-1")),
        ("dataset", text("cells")),
        ("policy", text("0123456789ab")),
        ("window_start", time(start)),
        ("window_end", time(end)),
        ("country", Arc::new(countries)),
        ("channel", Arc::new((0..rows).map(|row| Some(format!("channel-{}", row / 4))).collect::<StringArray>())),
        ("n", Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| row * 97 % 61 + window)))),
        ("mean", Arc::new(means.collect::<Float64Array>())),
        ("bins", Arc::new(bins.finish())),
    ];
    if tells_contributors {
        columns.insert(8, (CONTRIBUTORS, Arc::new(contributors.collect::<Int64Array>())));
    }
    Released::for_tests(ReleasedParts {
        id,
        destination: "desk".parse().unwrap(),
        dataset: "cells".parse().unwrap(),
        gateway: "eu-1".parse().unwrap(),
        window_start: start,
        window_end: end,
        policy: Digest::from_bytes([7; 32]),
        cells: RecordBatch::try_from_iter(columns).unwrap(),
    })
}

fn of_files() -> impl Iterator<Item = (&'static str, Format)> {
    Format::NAMES.into_iter().filter(|(_, format)| format.is_for_files())
}

fn of_messages() -> impl Iterator<Item = (&'static str, Format)> {
    Format::NAMES.into_iter().filter(|(_, format)| format.is_for_messages())
}

fn plain(cells: &RecordBatch) -> Vec<ArrayRef> {
    let texts = |column: &ArrayRef| match column.data_type() {
        DataType::Dictionary(..) => cast(column, &DataType::Utf8).unwrap(),
        _ => Arc::clone(column),
    };
    cells.columns().iter().map(texts).collect()
}

fn from_arrow(bytes: &[u8]) -> RecordBatch {
    let reader = FileReader::try_new(io::Cursor::new(bytes), None).unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn from_parquet(bytes: Vec<u8>) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[test]
fn every_file_holds_the_same_cells() {
    let releases: Vec<Released> = (29_000_000..29_000_003).map(released).collect();
    let all: Vec<RecordBatch> = releases.iter().map(|released| released.cells().clone()).collect();
    let expected = concat_batches(&all[0].schema(), &all).unwrap();
    let lines = file(&releases, Format::JsonLines).unwrap();
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), expected.num_rows());
    let compressed = file(&releases, Format::JsonLinesZstd).unwrap();
    assert_eq!(zstd::bulk::decompress(&compressed, lines.len()).unwrap(), lines);
    let arrow = from_arrow(&file(&releases, Format::Arrow).unwrap());
    assert_eq!(plain(&arrow), expected.columns());
    let parquet = from_parquet(file(&releases, Format::Parquet).unwrap());
    let as_expected = |(column, expected): (&ArrayRef, &ArrayRef)| cast(column, expected.data_type()).unwrap();
    let columns: Vec<ArrayRef> = parquet.columns().iter().zip(expected.columns()).map(as_expected).collect();
    assert_eq!(columns, expected.columns());
    for read in [&arrow, &parquet] {
        let names = read.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        assert_eq!(names, expected.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>());
    }
    for (_, format) in of_files() {
        assert_eq!(file(&releases, format).unwrap(), file(&releases, format).unwrap(), "{format:?}");
        assert_eq!(file(&[], format).unwrap().is_empty(), format != Format::JsonLinesZstd);
    }
}

#[test]
fn constants_and_labels_are_written_once() {
    let size = |releases: i64, format| {
        let releases: Vec<Released> = (29_000_000..29_000_000 + releases).map(released).collect();
        file(&releases, format).unwrap().len()
    };
    for (name, format) in of_files().skip(1) {
        let (one, ten) = (size(1, format), size(10, format));
        // Of each further cell, 32 in a release, only its numbers: three of them and five bins.
        let more = (ten - one) / (9 * 32);
        assert!(more < 24, "{name}: {more} bytes for each further cell; {one} for the first release");
        assert!(ten * 4 < size(10, Format::JsonLines), "{name}: {ten}");
    }
}

#[test]
fn files_of_every_version_are_read() {
    let expected = plain(released(29_000_000).cells());
    let golden = |name: &str| std::fs::read(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert_eq!(plain(&from_arrow(&golden("cells-arrow-1.arrow"))), expected);
    assert_eq!(plain(&from_arrow(&golden("cells-arrow-2.arrow"))), expected);
    let parquet = from_parquet(golden("cells-parquet-1.parquet"));
    let as_expected = |(column, expected): (&ArrayRef, &ArrayRef)| cast(column, expected.data_type()).unwrap();
    assert_eq!(parquet.columns().iter().zip(&expected).map(as_expected).collect::<Vec<_>>(), expected);
    // What is written now says the same.
    let now = from_arrow(&file(&[released(29_000_000)], Format::Arrow).unwrap());
    assert_eq!(now, from_arrow(&golden("cells-arrow-2.arrow")));
    assert_eq!(now.schema().metadata()["bailiwick.cells"], "2");
}

const PLENTY: usize = 1 << 24;

/// The lines of a message's cells, whatever its format.
fn lines(message: &[u8], format: Format) -> Vec<Value> {
    let of_text = |text: &[u8]| {
        std::str::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    match format {
        Format::JsonLines => of_text(message),
        Format::JsonLinesZstd => of_text(&zstd::bulk::decompress(message, PLENTY).unwrap()),
        Format::Arrow => of_text(&json_lines(&from_arrow_message(message))),
        Format::Protobuf => of_protobuf(&proto::Release::decode(message).unwrap()),
        Format::Parquet => panic!("not for messages"),
    }
}

/// As a consumer puts it together: what is the same in all cells, then the columns.
fn from_arrow_message(message: &[u8]) -> RecordBatch {
    let stream = zstd::bulk::decompress(message, PLENTY).unwrap();
    let batches: Vec<_> = StreamReader::try_new(stream.as_slice(), None).unwrap().map(Result::unwrap).collect();
    let [batch] = batches.as_slice() else { panic!("{} batches", batches.len()) };
    let schema = batch.schema();
    assert_eq!(schema.metadata()["bailiwick.cells"], "3");
    let same = RELEASE_COLUMNS.map(|name| {
        let texts = StringArray::from(vec![schema.metadata()[name].as_str(); batch.num_rows()]);
        (name, Arc::new(texts) as ArrayRef)
    });
    let names = schema.fields().iter().map(|field| field.name().as_str());
    RecordBatch::try_from_iter(same.into_iter().chain(names.zip(plain(batch)))).unwrap()
}

fn of_protobuf(release: &proto::Release) -> Vec<Value> {
    use proto::column::Values;

    let mut lines = vec![Map::new(); release.cells as usize];
    for line in &mut lines {
        let texts = [&release.release, &release.gateway, &release.dataset, &release.policy]
            .map(|text| Value::from(text.as_str()));
        let times = [release.window_start, release.window_end].map(|time| Value::from(rfc3339(time)));
        line.extend(RELEASE_COLUMNS.map(str::to_owned).into_iter().zip(texts.into_iter().chain(times)));
    }
    for column in &release.columns {
        let mut values: Vec<Value> = match column.values.as_ref().unwrap() {
            Values::Labels(labels) => {
                labels.of_cells.iter().map(|at| labels.labels[*at as usize].as_str().into()).collect()
            }
            Values::Whole(whole) => whole.values.iter().map(|value| (*value).into()).collect(),
            Values::Numbers(numbers) => numbers.values.iter().map(|value| (*value).into()).collect(),
            Values::Histograms(histograms) => {
                let mut counts: Vec<Option<i64>> = histograms.counts.iter().copied().map(Some).collect();
                histograms.without.iter().for_each(|at| counts.insert(*at as usize, None));
                counts.chunks(histograms.ranges.max(1) as usize).map(|counts| counts.to_vec().into()).collect()
            }
        };
        column.without.iter().for_each(|at| values.insert(*at as usize, Value::Null));
        assert_eq!(values.len(), lines.len(), "{}", column.name);
        for (line, value) in lines.iter_mut().zip(values) {
            line.insert(column.name.clone(), value);
        }
    }
    lines.into_iter().map(Value::Object).collect()
}

#[test]
fn every_message_holds_the_cells_whole_or_in_parts_and_is_the_same_again() {
    let released = released(29_000_000);
    let expected = lines(&parts(&released, Format::JsonLines, 1).unwrap().concat(), Format::JsonLines);
    assert_eq!(expected.len(), COUNTRIES.len() * 8);
    for (name, format) in of_messages() {
        for count in [1, 3, 32] {
            let messages = parts(&released, format, count).unwrap();
            assert_eq!(messages.len(), count, "{name}");
            let found: Vec<Value> = messages.iter().flat_map(|message| lines(message, format)).collect();
            assert_eq!(found, expected, "{name} in {count}");
            assert_eq!(messages, parts(&released, format, count).unwrap(), "{name}");
        }
        let size = |format| parts(&released, format, 1).unwrap()[0].len();
        let (bytes, readable) = (size(format), size(Format::JsonLines));
        assert!(format == Format::JsonLines || bytes * 8 < readable, "{name}: {bytes} bytes, {readable} as lines");
    }
}

#[test]
fn messages_say_what_they_are_and_those_of_every_version_are_read() {
    let released = released(29_000_000);
    let expected = lines(&parts(&released, Format::JsonLines, 1).unwrap().concat(), Format::JsonLines);
    let golden = |name: &str| std::fs::read(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let protobuf = golden("message-protobuf-1.pb");
    assert_eq!(lines(&protobuf, Format::Protobuf), expected);
    assert_eq!(parts(&released, Format::Protobuf, 1).unwrap(), [protobuf]);
    // What zstd makes of the same bytes is up to its version.
    assert_eq!(lines(&golden("message-arrow-3.arrows.zst"), Format::Arrow), expected);
    let content = Format::Arrow.content();
    assert_eq!((content.schema, content.encoding), ("urn:bailiwick:cells:arrow:3", Some("zstd")));
    assert_eq!(Format::Protobuf.content().encoding, None);
}

/// The layout of every format has room for the column, with and without values: its version is the same.
#[test]
fn how_many_contributors_there_are_at_least_is_a_column_in_every_format() {
    let released = released_with(29_000_000, true);
    let golden = |name: &str| std::fs::read(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let of_lines = parts(&released, Format::JsonLines, 1).unwrap().concat();
    assert_eq!(of_lines, golden("cells-contributors-1.jsonl"));
    let expected = lines(&of_lines, Format::JsonLines);
    let told: Vec<&Value> = expected.iter().map(|line| &line[CONTRIBUTORS]).collect();
    assert_eq!(told[..4], [&Value::Null, &20.into(), &1_000.into(), &10.into()]);
    let keys: Vec<&String> = expected[0].as_object().unwrap().keys().skip(RELEASE_COLUMNS.len()).collect();
    assert_eq!(keys, ["country", "channel", CONTRIBUTORS, "n", "mean", "bins"]);
    for (name, format) in of_messages() {
        let messages = parts(&released, format, 3).unwrap();
        let found: Vec<Value> = messages.iter().flat_map(|message| lines(message, format)).collect();
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(parts(&released, Format::Protobuf, 1).unwrap(), [golden("message-contributors-1.pb")]);
    let releases = [released];
    let arrow = RecordBatch::try_from_iter({
        let read = from_arrow(&file(&releases, Format::Arrow).unwrap());
        let names = read.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        names.into_iter().zip(plain(&read))
    });
    assert_eq!(lines(&json_lines(&arrow.unwrap()), Format::JsonLines), expected);
    let parquet = from_parquet(file(&releases, Format::Parquet).unwrap());
    let of_parquet = parquet.column_by_name(CONTRIBUTORS).unwrap();
    assert_eq!(of_parquet, releases[0].cells().column_by_name(CONTRIBUTORS).unwrap());
}

#[test]
fn a_smaller_release_says_so_in_every_format() {
    let top = Step::Top(Top { rows: 3, by: By::Metric("n".to_owned()) });
    let (whole, beside) = (released(29_000_000), released(29_000_001));
    let smaller = whole.reduced(&Reduction(vec![top])).unwrap();
    let of_lines = |released: &Released| parts(released, Format::JsonLines, 1).unwrap().concat();
    let expected = lines(&of_lines(&smaller), Format::JsonLines);
    assert!(
        expected.len() == 3 && expected.iter().all(|line| line[DEGRADED] == "top" && line["release"] == smaller.id())
    );
    for (name, format) in of_messages() {
        let message = parts(&smaller, format, 1).unwrap().concat();
        let found: Vec<Value> = match format {
            Format::Protobuf => {
                let release = proto::Release::decode(message.as_slice()).unwrap();
                assert_eq!((release.degraded.as_str(), release.columns.len()), ("top", 5));
                of_protobuf(&release)
            }
            Format::Arrow => {
                let stream = zstd::bulk::decompress(&message, PLENTY).unwrap();
                let reader = StreamReader::try_new(stream.as_slice(), None).unwrap();
                let schema = reader.schema();
                assert_eq!((schema.metadata()[DEGRADED].as_str(), schema.fields().len()), ("top", 5));
                lines(&message, format)
            }
            _ => lines(&message, format),
        };
        let without = |line: &Value| {
            let line = line.as_object().unwrap().iter().filter(|(name, _)| *name != DEGRADED);
            line.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
        };
        assert!(found.iter().map(without).eq(expected.iter().map(without)), "{name}");
        let of_whole = parts(&whole, Format::Protobuf, 1).unwrap().concat();
        assert_eq!(proto::Release::decode(of_whole.as_slice()).unwrap().degraded, "");
    }
    // A file holds whole ones beside it.
    let both = [beside.clone(), smaller.clone(), beside.clone()];
    let together = [of_lines(&beside), of_lines(&smaller), of_lines(&beside)].concat();
    assert_eq!(file(&both, Format::JsonLines).unwrap(), together);
    let rows = beside.cells().num_rows();
    let read = [from_arrow(&file(&both, Format::Arrow).unwrap()), from_parquet(file(&both, Format::Parquet).unwrap())];
    for read in read {
        assert_eq!(read.schema().index_of(DEGRADED).unwrap(), RELEASE_COLUMNS.len());
        let degraded = cast(read.column_by_name(DEGRADED).unwrap(), &DataType::Utf8).unwrap();
        let expected = std::iter::repeat_n(None, rows).chain(std::iter::repeat_n(Some("top"), 3));
        let expected: StringArray = expected.chain(std::iter::repeat_n(None, rows)).collect();
        assert_eq!(degraded.as_string::<i32>(), &expected);
    }
}

#[test]
fn what_has_changed_says_since_what_in_every_format() {
    let row = |city: &str, n: i64| (["DE".to_owned(), city.to_owned()], (1, n, Some(n)));
    let before: Table = [row("a", 7), row("b", 5), row("c", 1), row("d", 2)].into();
    let now: Table = [row("a", 7), row("b", 6), row("d", 2)].into();
    let whole = [("aa", &before), ("bb", &now)].map(|(id, table)| receiver::released("cells", id, table));
    let told = |_: &DatasetName| Some(LastTold { id: whole[0].id(), whole: &whole[0] });
    let form = Reduction::on_change(Changes::since(told, &whole[1..]));
    let changed = form.applied(&whole[1..]).unwrap().remove(0);
    let of_lines = |released: &Released| parts(released, Format::JsonLines, 1).unwrap().concat();
    let expected = lines(&of_lines(&changed), Format::JsonLines);
    let said = |line: &Value| [SINCE, CHANGE, "city"].map(|name| line[name].as_str().unwrap().to_owned());
    assert_eq!(expected.iter().map(said).collect::<Vec<_>>(), [["aa", "set", "b"], ["aa", "gone", "c"]]);
    for (name, format) in of_messages() {
        let message = parts(&changed, format, 1).unwrap().concat();
        let (since, columns, found) = match format {
            Format::Protobuf => {
                let release = proto::Release::decode(message.as_slice()).unwrap();
                (release.since.clone(), release.columns.len(), of_protobuf(&release))
            }
            Format::Arrow => {
                let stream = zstd::bulk::decompress(&message, PLENTY).unwrap();
                let schema = StreamReader::try_new(stream.as_slice(), None).unwrap().schema();
                (schema.metadata()[SINCE].clone(), schema.fields().len(), lines(&message, format))
            }
            _ => ("aa".to_owned(), 6, lines(&message, format)),
        };
        assert_eq!((since.as_str(), columns), ("aa", 6), "{name}");
        let of_cells = |line: &Value| [CHANGE, "country", "city", "n", "mean"].map(|name| line[name].clone());
        assert!(found.iter().map(of_cells).eq(expected.iter().map(of_cells)), "{name}");
    }
    // In a file beside the whole one that it rests on.
    let both = [whole[0].clone(), changed.clone()];
    assert_eq!(file(&both, Format::JsonLines).unwrap(), [of_lines(&both[0]), of_lines(&changed)].concat());
    let read = [from_arrow(&file(&both, Format::Arrow).unwrap()), from_parquet(file(&both, Format::Parquet).unwrap())];
    for read in read {
        let texts = |name: &str| cast(read.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
        let all = |last: [&str; 2]| -> StringArray { [None; 4].into_iter().chain(last.map(Some)).collect() };
        assert_eq!(texts(SINCE).as_string::<i32>(), &all(["aa", "aa"]));
        assert_eq!(texts(CHANGE).as_string::<i32>(), &all(["set", "gone"]));
        let counts = read.column_by_name("n").unwrap().as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        assert_eq!(counts, [Some(7), Some(5), Some(1), Some(2), Some(6), None]);
    }
    let mut receiver = Receiver::default();
    assert!(receiver.hear(&both[0]) && receiver.hear(&both[1]) && receiver.table == now);
}

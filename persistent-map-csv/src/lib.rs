#![doc = include_str!("../README.md")]
//!
//! # What `Ok` is worth
//!
//! | Setting | An acknowledged write survives |
//! |---|---|
//! | `sync(true)` (default) | `kill -9` at any instant, and a power cut on a disk that honours flush |
//! | `sync(false)` | `kill -9` at any instant; a power cut may take the latest writes since the last `flush`, never the order and never the table |
//!
//! # The files
//!
//! After `flush` and `close`, `NAME.csv` is the whole map: a header, and one row a key, sorted by the text of the key.
//! Beside it stays `NAME.csv.lock`, which says who has it open, also beside a table that was refused. While the map is written to, there is also
//! `NAME.csv.journal`, where each commit is appended; when it outgrows the table, both are merged into a new table, in a
//! thread of its own. Writes go on meanwhile, and the first one after its end gives the new table the name, and goes on with
//! a journal of what was written since. So a write costs the same however large the map is. (If the journal grows to four
//! times that size before a merge has ended, writes wait for it.) Until then there are `NAME.csv.persistent-map-new` and
//! `NAME.csv.journal.persistent-map-new`, which mean nothing. `flush` always merges, and waits for that, which costs as much
//! as writing the table: call it when somebody is to look at the file, not after each insert.
//!
//! Nothing of the map is held in memory here, beside the map's own. A merge needs room for the keys that have changed
//! since the last one (of all keys, if somebody else's table was not in order), and on the disk for one more table and
//! journal.
//!
//! # Keys and values as text
//!
//! | Type | Columns |
//! |---|---|
//! | key | the column `key`, or what [`key_column`](CsvBackend::key_column) names |
//! | value: a struct | a column for each field, by its name, in the order of the declaration |
//! | value: anything else | the column `value` |
//!
//! | In a cell | Text |
//! |---|---|
//! | number, `bool`, `char`, string, unit variant of an enum | as one would type it |
//! | `None`, `()` | nothing |
//! | `Some("")` | `""` (two quotation marks as text; other texts of nothing but pairs of them get one pair more) |
//! | list, map, struct, other variants, bytes | JSON |
//!
//! A new table takes the shape of the first value that is written to it. After that the header says which shape it is:
//! exactly two columns, one of them `value`, hold a value in one cell; everything else holds a struct in its fields. A
//! struct that could be mistaken (its only field is called `value`) or does not read back from its fields is therefore
//! written as JSON in `value`. A field that is called like the key's column is the key, and must be equal to it.
//!
//! Each value is read back before it is accepted, so that a type that would lose something (an `Option` in an `Option`,
//! a NaN in a list) is refused by the insert, and never found out later.
//!
//! # Tables of other people
//!
//! Any table with a column for the keys and one for each field opens as it is: in any order of rows and columns, with
//! `,`, `;`, tabs or `|` (or what a first line `sep=;` says), any line ends, a byte order mark, quoted or not, with spaces
//! around the names of the header and around numbers, with columns that are no fields
//! ([kept](CsvBackend::keep_extra_columns) unless set otherwise). It is written in the same way: unchanged rows stay as
//! they are to the byte, so that the difference is what has changed. Opening and flushing without a change do not touch
//! it; the first write sorts the rows, and drops blank lines and rows with nothing in them (`,,`), as spreadsheets leave them
//! at the end. `OpenReport::empty_rows` counts the latter.
//!
//! What a table does not say by itself is said by an option, and holds for reading and writing:
//!
//! | In the table | Option |
//! |---|---|
//! | `9,5` | [`decimal(',')`](CsvBackend::decimal) |
//! | `NA`, `NULL`, `\N`, `-` for nothing | [`null_words(["NA"])`](CsvBackend::null_words) |
//! | `yes` and `no`, `1` and `0`, `WAHR` and `FALSCH` | [`bool_words("yes", "no")`](CsvBackend::bool_words) |
//! | `007` as a number | [`leading_zeros(true)`](CsvBackend::leading_zeros) |
//! | lines that begin with `#` | [`comments('#')`](CsvBackend::comments) |
//! | titles before the header | [`title_lines(true)`](CsvBackend::title_lines) |
//! | rows that are shorter, or end in separators | [`uneven_rows(true)`](CsvBackend::uneven_rows) |
//! | another separator, or `;` in a new table | [`separator(';')`](CsvBackend::separator) |
//! | a byte order mark in a new table | [`bom(true)`](CsvBackend::bom) |
//!
//! Nothing is guessed. A number that could be another one (`1,234`), that lost digits on its way (`1.23457E+17`), or that
//! would lose some (`02134`, which may be a code) is refused, with the line and what to do. So are a header in the middle, where
//! two files were put together, and files that are no tables or not UTF-8. What cannot be told from a number is read as
//! one: `1.234` is one and a bit unless `decimal(',')` is set.
//!
//! A row of the map that would be read as something else (empty in all cells, equal to the header, beginning like a
//! comment) is written in quotation marks. A spreadsheet that saves the table may drop them, and the entry with it.
//!
//! A table that version 0.1 has written has no header, and is not opened but [imported](import_0_1).
//!
//! Edits between two runs are what a CSV file is for, and are taken without a question. What cannot be read is an error
//! that names the line, the column and what to do, and leaves the file as it is: text that is not UTF-8, two rows with
//! one key, a missing column, a row with another number of cells than the header, a quotation mark that is never closed, a cell that is
//! no number. `OnCorrupt::Quarantine` moves rows that cannot be read to `NAME.csv.quarantine.csv`, and of rows with one key all
//! but the first, or [the last](CsvBackend::keep_last_duplicate).
//!
//! When a table is closed, its length and checksum are noted in the `.lock` file that stays beside it. A table that is
//! shorter at the next open, and whose last line has no end, was cut (half a copy, a full disk): it is refused, because
//! its last cell may be a part of what it was. Every other change is an edit, and is told by `OpenReport::edited`.
//!
//! Without that note (the `.lock` file is gone, or the map was not closed) a reader of CSV cannot notice a last line that lost
//! its end without losing a cell. And what nobody can tell
//! from an edit: a byte that the disk has flipped in a table without a journal. The journal has checksums, and so has a
//! table that a journal belongs to.
//!
//! # Edits while the map is open, or before it was recovered
//!
//! A journal names the table that it belongs to, by length and checksum. If the table was changed while the map was open,
//! neither `flush` nor a merge overwrites it, and `flush` says so; if it was changed after a crash, the map refuses to open. Nothing is lost in either
//! case: the edited table and the journal both stay, and
//! [`replay_onto_edited_table`](CsvBackend::replay_onto_edited_table) puts the writes onto the edited table, if that is
//! what is wanted.
//!
//! # Other types
//!
//! A table is read by its columns, so a type may lose a field (its column is kept) or have its fields in another order
//! without further ado. A field that has no column is a [`Mismatch`](persistent_map_core::PersistentError::Mismatch), also
//! if it is an `Option`. When a map replaces its entries by those of a newer type, the whole table is written anew and takes
//! the name in one step: columns of both types stay where they are, new ones come last, those that only the older type
//! had go, and columns that were no fields stay with their cells.
//!
//! # Spreadsheets
//!
//! Text that begins with `=`, `+`, `-` or `@` (in full width, too), a tab or a line end may be a formula to a spreadsheet. It is written as it is unless
//! [`guard_formulas`](CsvBackend::guard_formulas) is set. A text that begins with `'` before such a sign is read without
//! one `'` and written with one more, whatever the option says.
//!
//! # Limits
//!
//! An entry has at most 16 MiB of text. Bytes and other lists are JSON there, which takes up to four letters for a byte: a
//! `Vec<u8>` of 4 MiB may be too large, and a `String` in base64 takes a third more than its bytes. A table has one name: hard links are refused, symbolic links followed. A single
//! file that is mounted by itself (into a container, say) can be opened, but not be replaced: mount its directory. Keep
//! tables on a local disk; locks on network file systems are not to be trusted.

mod backend;
mod cell;
mod checkpoint;
mod closed;
#[cfg(test)]
mod crash;
mod disk;
mod duplicates;
mod format;
mod import;
mod journal;
mod load;
mod merge;
mod settings;
mod shape;
mod store;
mod table;
mod text;

use persistent_map_core::PersistentMap;

pub use backend::CsvBackend;
pub use import::import_0_1;

/// A map in a CSV file: the type for fields and parameters.
///
/// ```
/// use persistent_map_core::Result;
/// use persistent_map_csv::{CsvBackend, CsvMap};
///
/// #[derive(Clone)]
/// struct App {
///     visits: CsvMap<String, u64>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("app.csv");
/// let app = App { visits: CsvMap::new(CsvBackend::new(path)).await? };
/// app.visits.insert("start".to_string(), 1).await?;
/// # app.visits.close().await
/// # }
/// ```
pub type CsvMap<K, V> = PersistentMap<K, V, CsvBackend>;

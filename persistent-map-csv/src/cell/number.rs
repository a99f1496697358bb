//! Numbers as people and their programs write them: read if there is one way to read them, else refused with what to do.
//!
//! A number that could be another one is never guessed: `1,234` is one or a thousand, and `02134` is a code.

use std::borrow::Cow;

use super::CellError;
use super::style::Style;

/// Up to here a float holds each whole number.
const EXACT: u128 = 1 << 53;

/// The text of a whole number, for `parse`.
pub(super) fn whole<'a>(
    text: &'a str,
    style: &Style,
    expected: &str,
) -> Result<Cow<'a, str>, CellError> {
    let text = bare(text, expected)?;
    check_zeros(&text, style, expected)?;
    let Some((whole, fraction)) = text.split_once(style.decimal) else {
        return Ok(text);
    };
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte == b'0') {
        return Ok(text);
    }
    // Python writes `12.0` for a whole number when there are empty cells in its column, after it was a float.
    if fraction.len() == 3 {
        return Err(CellError::advised(
            format!(
                "expected {expected}, and found one that ends in `{}000`",
                style.decimal
            ),
            "It may be the number before that or a thousand times as much: write it without",
        ));
    }
    if whole
        .trim_start_matches('-')
        .parse::<u128>()
        .is_ok_and(|whole| whole > EXACT)
    {
        return Err(CellError::advised(
            format!("expected {expected}, and found a large one with a fraction"),
            "Another program has taken it for a float, which holds 15 digits: take the number from where it came from",
        ));
    }
    Ok(whole.to_string().into())
}

/// The text of a number, for `parse`.
pub(super) fn float<'a>(
    text: &'a str,
    style: &Style,
    expected: &str,
) -> Result<Cow<'a, str>, CellError> {
    let text = bare(text, expected)?;
    check_zeros(&text, style, expected)?;
    match style.pointed(&text) {
        Some(text) => Ok(text.into_owned().into()),
        None => Err(unreadable(&text, style, expected)),
    }
}

/// Whether what was parsed is what was written, but for its last digits.
pub(super) fn is_in_range(text: &str, is_infinite: bool, is_zero: bool) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let has_digits = mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    !((is_infinite || is_zero) && has_digits)
}

/// Why a text is no number, and what to do about it.
pub(super) fn unreadable(text: &str, style: &Style, expected: &str) -> CellError {
    let text = text.trim();
    let (found, advice) = diagnosis(text, style, expected.starts_with("a whole"));
    CellError::advised(format!("expected {expected}{found}"), advice)
}

pub(super) fn out_of_range(expected: &str) -> CellError {
    CellError::advised(
        format!("expected {expected}, and found one out of its range"),
        "Correct the cell, or take a type with a larger range",
    )
}

/// Without spaces, and with the minus that `parse` knows.
fn bare<'a>(text: &'a str, expected: &str) -> Result<Cow<'a, str>, CellError> {
    let trimmed = text.trim();
    if trimmed.is_empty() && !text.is_empty() {
        return Err(CellError::Blank(String::new(), expected.to_string()));
    }
    Ok(match trimmed.strip_prefix('\u{2212}') {
        Some(size) => format!("-{size}").into(),
        None => trimmed.into(),
    })
}

fn check_zeros(text: &str, style: &Style, expected: &str) -> Result<(), CellError> {
    let digits = text.trim_start_matches(['+', '-']).as_bytes();
    if style.leading_zeros || !matches!(digits, [b'0', b'0'..=b'9', ..]) {
        return Ok(());
    }
    Err(CellError::advised(
        format!("expected {expected}, and found one with a zero before it, which would be lost"),
        "If it is a code, use `String` for the field; if it is a number, open the file with \
         `CsvBackend::new(..).leading_zeros(true)`",
    ))
}

/// Words that other programs write for nothing.
const NULLS: [&str; 14] = [
    "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "nil", "\\N", "-",
    "--",
];

fn diagnosis(text: &str, style: &Style, is_whole: bool) -> (String, String) {
    let plain = |found: &str, advice: &str| (found.to_string(), advice.to_string());
    if text.is_empty() {
        return plain(
            ", and the cell is empty",
            "Fill it, or make the field an `Option`",
        );
    }
    if let Some(word) = NULLS.iter().find(|word| **word == text) {
        let quoted = format!("{word:?}");
        return (
            format!(", and found `{word}`"),
            format!(
                "Make the field an `Option`, and open the file with `CsvBackend::new(..).null_words([{quoted}])`"
            ),
        );
    }
    let is_digit = |letter: char| letter.is_ascii_digit();
    if text.starts_with('#') {
        return plain(
            ", and found what a spreadsheet writes for a formula that failed",
            "Mend the formula in the spreadsheet, and save the table again",
        );
    }
    if !text.contains(is_digit) {
        return plain(", and found none", "Correct the cell");
    }
    if text
        .trim_start_matches(['+', '-'])
        .to_ascii_lowercase()
        .starts_with("0x")
    {
        return plain(
            ", and found a hexadecimal one",
            "Write it in decimal, or use `String` for the field",
        );
    }
    if text.starts_with('(') && text.ends_with(')') {
        return plain(
            ", and found one in parentheses",
            "Write a negative number with `-` before it",
        );
    }
    if text.contains('%') {
        return plain(
            ", and found a percentage",
            "Write the number without the sign",
        );
    }
    if is_whole && is_scientific(text, style) {
        return plain(
            ", and found one with an exponent",
            "A spreadsheet has rounded it: take the number from where it came from, and format the column as text there",
        );
    }
    if text.contains(is_foreign) {
        return plain(
            ", and found other signs beside it",
            "Leave the number alone in the cell; a currency or a unit may stand in the header",
        );
    }
    grouped(text, style, is_whole)
}

fn is_scientific(text: &str, style: &Style) -> bool {
    text.contains(['e', 'E'])
        && style
            .pointed(text)
            .is_some_and(|text| text.parse::<f64>().is_ok())
}

/// What is neither a digit nor a part of a number or of its groups.
fn is_foreign(letter: char) -> bool {
    !letter.is_ascii_digit()
        && !letter.is_whitespace()
        && !matches!(
            letter,
            '.' | ',' | '+' | '-' | 'e' | 'E' | '\'' | '\u{2019}' | '_'
        )
}

/// A number with points, commas or other signs in it that are not where this style has them.
fn grouped(text: &str, style: &Style, is_whole: bool) -> (String, String) {
    const COMMA: &str = "open the file with `CsvBackend::new(..).decimal(',')`";
    const POINT: &str = "open the file without `.decimal(',')`";
    let answer = |found: &str, advice: String| (format!(", and found {found}"), advice);
    let (comma, point) = (text.rfind(','), text.rfind('.'));
    match (comma, point) {
        (Some(comma), Some(point)) if comma > point && style.decimal == '.' => answer(
            "a comma",
            format!("Remove the points that group the thousands, and {COMMA}"),
        ),
        (Some(comma), Some(point)) if comma < point && style.decimal == ',' => answer(
            "a point",
            format!("Remove the commas that group the thousands, and {POINT}"),
        ),
        (Some(_), Some(_)) => answer(
            "points and commas",
            "Remove the signs that group the thousands".to_string(),
        ),
        (Some(_), None) if style.decimal == '.' => answer(
            "a comma",
            match groups(text, ',') {
                Groups::One => format!(
                    "If it groups the thousands, remove it; if a fraction comes after it, {COMMA}"
                ),
                Groups::Many => "Remove the commas that group the thousands".to_string(),
                Groups::None if is_whole => {
                    "Correct the cell, or use `f64` for the field".to_string()
                }
                Groups::None => format!("If a fraction comes after it, {COMMA}"),
            },
        ),
        (None, Some(_)) if style.decimal == ',' => answer(
            "a point",
            match groups(text, '.') {
                Groups::One => {
                    format!(
                        "If it groups the thousands, remove it; if a fraction comes after it, {POINT}"
                    )
                }
                Groups::Many => "Remove the points that group the thousands".to_string(),
                Groups::None => format!("If a fraction comes after it, {POINT}"),
            },
        ),
        _ if text
            .contains(|letter: char| letter.is_whitespace() || "'\u{2019}_".contains(letter)) =>
        {
            answer(
                "signs between its digits",
                "Remove the signs that group the thousands".to_string(),
            )
        }
        (None, Some(_)) | (Some(_), None) if is_whole => answer(
            "a fraction",
            "Round the number, or use `f64` for the field".to_string(),
        ),
        _ if is_whole
            && text
                .trim_start_matches(['+', '-'])
                .bytes()
                .all(|byte| byte.is_ascii_digit()) =>
        {
            answer(
                "one out of its range",
                "Correct the cell, or take a type with a larger range".to_string(),
            )
        }
        _ => answer("something else", "Correct the cell".to_string()),
    }
}

enum Groups {
    None,
    /// The sign may come before a fraction, too.
    One,
    Many,
}

fn groups(text: &str, sign: char) -> Groups {
    let mut parts = text.trim_start_matches(['+', '-']).split(sign);
    let first = parts.next().unwrap_or_default();
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let rest: Vec<&str> = parts.collect();
    let is_grouped = (1..=3).contains(&first.len())
        && is_number(first)
        && rest.iter().all(|part| part.len() == 3 && is_number(part));
    match rest.len() {
        _ if !is_grouped => Groups::None,
        1 => Groups::One,
        _ => Groups::Many,
    }
}

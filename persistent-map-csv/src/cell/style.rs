//! How a table writes what people do not all write alike.

use std::borrow::Cow;

/// Where nothing is set, the style is [`PLAIN`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Style {
    /// What stands before the fraction of a number: `.` or `,`.
    pub(crate) decimal: char,
    /// Words for nothing. `None` is written as the first.
    pub(crate) null_words: Vec<String>,
    /// Words for true and false, besides these two.
    pub(crate) bool_words: Option<(String, String)>,
    /// `007` is a number.
    pub(crate) leading_zeros: bool,
}

pub(crate) static PLAIN: Style = Style {
    decimal: '.',
    null_words: Vec::new(),
    bool_words: None,
    leading_zeros: false,
};

const PAIR: &str = "\"\"";

impl Style {
    /// The text of `None`.
    pub(super) fn nothing(&self) -> &str {
        self.null_words.first().map_or("", String::as_str)
    }

    pub(super) fn is_nothing(&self, text: &str) -> bool {
        text.is_empty() || self.null_words.iter().any(|word| word == text)
    }

    /// The text of `Some` for something with the text `text`, which must not look like `None`.
    pub(super) fn something(&self, text: String) -> String {
        if self.is_marked(&text) {
            PAIR.to_string() + &text
        } else {
            text
        }
    }

    /// What is in `Some`, by the text of the cell; `None` for nothing.
    pub(super) fn inner<'a>(&self, text: &'a str) -> Option<&'a str> {
        if self.is_nothing(text) {
            None
        } else if self.is_marked(text) {
            text.strip_prefix(PAIR)
        } else {
            Some(text)
        }
    }

    /// Whether a text is nothing, but for pairs of quotation marks before it.
    fn is_marked(&self, mut text: &str) -> bool {
        loop {
            if self.is_nothing(text) {
                return true;
            }
            match text.strip_prefix(PAIR) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
    }

    pub(super) fn bool_of(&self, text: &str) -> Option<bool> {
        let text = text.trim();
        let is = |word: &str| text.eq_ignore_ascii_case(word) || text == word;
        let words = self.bool_words.as_ref();
        if is("true") || words.is_some_and(|(yes, _)| is(yes)) {
            Some(true)
        } else if is("false") || words.is_some_and(|(_, no)| is(no)) {
            Some(false)
        } else {
            None
        }
    }

    pub(super) fn bool_text(&self, value: bool) -> &str {
        match &self.bool_words {
            Some((yes, _)) if value => yes,
            Some((_, no)) => no,
            None if value => "true",
            None => "false",
        }
    }

    /// A number with a decimal point, as this style writes it.
    pub(super) fn number(&self, text: String) -> String {
        if self.decimal == '.' {
            text
        } else {
            text.replace('.', &self.decimal.to_string())
        }
    }

    /// A number as this style writes it, with a decimal point. `None` if it has one already that means something else.
    pub(super) fn pointed<'a>(&self, text: &'a str) -> Option<Cow<'a, str>> {
        if self.decimal == '.' {
            Some(text.into())
        } else if text.contains('.') {
            None
        } else {
            Some(text.replace(self.decimal, ".").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_something_stay_apart() {
        let words = ["NA", "\\N", "-", "\"\"x"].map(str::to_string);
        let style = Style {
            null_words: words.to_vec(),
            ..PLAIN.clone()
        };
        for text in [
            "",
            "\"\"",
            "\"\"\"\"",
            "NA",
            "\"\"NA",
            "\"\"\"\"NA",
            "\\N",
            "-",
            "x",
            "\"\"x",
            "\"x",
            "nA",
        ] {
            let written = style.something(text.to_string());
            assert_eq!(style.inner(&written), Some(text), "{text} as {written}");
        }
        assert_eq!(style.inner(style.nothing()), None);
        assert_eq!(style.inner(""), None);
        assert_eq!(PLAIN.inner("NA"), Some("NA"));
    }
}

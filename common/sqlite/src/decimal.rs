//! Decimal numbers of any length, as digits and an exponent.

/// ± digits × 10^exponent, without zeros at either end of the digits; zero has none, and the exponent 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decimal {
    /// Whether there is a minus, even before a zero.
    pub is_negative: bool,
    /// ASCII digits.
    pub digits: Vec<u8>,
    /// Of the last digit.
    pub exponent: i32,
}

/// Exponents beyond this have no use in any type here, and sums of them can't overflow.
const EXPONENT_LIMIT: i64 = 1_000_000;

/// Digits that tell every float4 from every other.
const SINGLE_DIGITS: usize = 9;
/// Digits after the first that write the half between two float4 exactly: it has at most 150 bits behind the point.
const HALF_DIGITS: usize = 150;

/// Whether a number is exactly the half between this float4 and one beside it.
fn is_halfway(text: &str, value: f32) -> bool {
    let Ok(number) = text.parse::<f64>() else { return false };
    [value.next_up(), value.next_down()].into_iter().filter(|beside| beside.is_finite()).any(|beside| {
        // Exact: it has one bit more than a float4.
        let half = f64::midpoint(f64::from(value), f64::from(beside));
        let is_near = half == number;
        is_near
            && Decimal::parse(text.as_bytes()) == Decimal::parse(format!("{half:.HALF_DIGITS$e}").as_bytes())
    })
}

impl Decimal {
    /// Reads `[+-]digits[.digits][e[+-]digits]`, with a digit at least, and white space around it: what `numeric` takes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut decimal = Self::default();
        decimal.read(text).then_some(decimal)
    }

    /// The same into this one, whose buffer is used again. After `false` it means nothing.
    pub fn read(&mut self, text: &[u8]) -> bool {
        self.digits.clear();
        self.exponent = 0;
        let text = text.trim_ascii();
        let (sign, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        self.is_negative = sign;
        let digits_of = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = digits_of(rest);
        let mut rest = &rest[whole..];
        let whole_digits = &text[text.len() - rest.len() - whole..][..whole];
        let mut fraction: &[u8] = &[];
        if let [b'.', after @ ..] = rest {
            let count = digits_of(after);
            (fraction, rest) = after.split_at(count);
        }
        if whole_digits.is_empty() && fraction.is_empty() {
            return false;
        }
        let Some(exponent) = exponent(rest) else { return false };
        self.digits.extend_from_slice(whole_digits);
        self.digits.extend_from_slice(fraction);
        let Ok(places) = i64::try_from(fraction.len()) else { return false };
        self.normalise(exponent - places)
    }

    fn normalise(&mut self, exponent: i64) -> bool {
        let zeros = self.digits.iter().rev().take_while(|digit| **digit == b'0').count();
        self.digits.truncate(self.digits.len() - zeros);
        let leading = self.digits.iter().take_while(|digit| **digit == b'0').count();
        self.digits.drain(..leading);
        if self.digits.is_empty() {
            self.exponent = 0;
            return true;
        }
        let exponent = exponent + i64::try_from(zeros).unwrap_or(EXPONENT_LIMIT);
        self.exponent = i32::try_from(exponent).unwrap_or(i32::MAX);
        exponent.abs() <= EXPONENT_LIMIT
    }

    /// The shortest decimal number that is read back as this double.
    pub fn read_f64(&mut self, value: f64) -> bool {
        value.is_finite() && self.read(zmij::Buffer::new().format_finite(value).as_bytes())
    }

    /// The decimal number that PostgreSQL writes for this float4: the shortest between the halves of the ways to its neighbours.
    ///
    /// A number on such a half is read back as the float4 with the even last bit, and others take it for the shortest. PostgreSQL
    /// does not: what was 3e10 is 3.0000001e+10 there, another number for whoever reads it as a double.
    pub fn read_f32(&mut self, value: f32) -> bool {
        let mut buffer = zmij::Buffer::new();
        if !value.is_finite() {
            return false;
        }
        let text = buffer.format_finite(value);
        if !is_halfway(text, value) {
            return self.read(text.as_bytes());
        }
        let shortest = if self.read(text.as_bytes()) { self.digits.len() } else { return false };
        (shortest + 1..=SINGLE_DIGITS).any(|digits| {
            let text = format!("{value:.*e}", digits - 1);
            text.parse() == Ok(value) && !is_halfway(&text, value) && self.read(text.as_bytes())
        })
    }

    /// An integer.
    pub fn read_i64(&mut self, value: i64) {
        let read = self.read(itoa::Buffer::new().format(value).as_bytes());
        debug_assert!(read, "an integer is a decimal number");
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// How many digits stand before the point; negative if zeros follow the point.
    pub fn whole_digits(&self) -> i64 {
        self.digits.len() as i64 + i64::from(self.exponent)
    }

    /// The number times 10^scale, if that is an integer of 64 bits. `Err(true)`: it would have to be rounded; `Err(false)`: it is too big.
    pub fn scaled(&self, scale: i32) -> Result<i64, bool> {
        let exponent = self.exponent.saturating_add(scale);
        if self.is_zero() {
            return Ok(0);
        }
        if exponent < 0 {
            return Err(true);
        }
        if self.digits.len() as i64 + i64::from(exponent) > 19 {
            return Err(false);
        }
        let digits = self.digits.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let value = digits * 10_i128.pow(exponent.unsigned_abs());
        i64::try_from(if self.is_negative { -value } else { value }).map_err(|_| false)
    }
}

fn exponent(text: &[u8]) -> Option<i64> {
    let rest = match text {
        [] => return Some(0),
        [b'e' | b'E', rest @ ..] => rest,
        _ => return None,
    };
    let (sign, digits) = match rest {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0_i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(EXPONENT_LIMIT * 4));
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<(bool, String, i32)> {
        Decimal::parse(text.as_bytes())
            .map(|d| (d.is_negative, String::from_utf8(d.digits).unwrap(), d.exponent))
    }

    #[test]
    fn one_number_has_one_form() {
        for (text, digits, exponent) in [
            ("10.10", "101", -1),
            (" +00101e-1 ", "101", -1),
            ("1e3", "1", 3),
            ("1000", "1", 3),
            ("0.00", "", 0),
            ("0e99", "", 0),
            (".5", "5", -1),
            ("5.", "5", 0),
        ] {
            assert_eq!(shown(text), Some((false, digits.to_owned(), exponent)), "{text}");
        }
        assert!(shown("-0").unwrap().0);
        for text in ["", ".", "e5", "1e", "1e+", "1 2", "0x10", "1_000", "Infinity", "--1", "1e9999999"] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    /// Each on the half between two float4, with what PostgreSQL 14 and 18 write for it.
    #[test]
    fn a_float4_has_the_digits_that_postgresql_writes() {
        for (number, written) in [
            ("3e10", "3.0000001e+10"),
            ("-1.5e10", "-1.5000001e+10"),
            ("9e9", "8.999999e+09"),
            ("13e9", "1.2999999e+10"),
            ("12e10", "1.20000004e+11"),
            ("36e9", "3.5999998e+10"),
            ("4.3e9", "4.3000003e+09"),
            ("6393e5", "6.3929997e+08"),
            ("22724e5", "2.2723999e+09"),
            ("90224e5", "9.022401e+09"),
            ("0.1", "0.1"),
            ("16777216", "1.6777216e+07"),
            ("1e-45", "1e-45"),
            ("3.4028235e38", "3.4028235e+38"),
        ] {
            let mut decimal = Decimal::default();
            assert!(decimal.read_f32(number.parse().unwrap()), "{number}");
            assert_eq!(Some(decimal), Decimal::parse(written.as_bytes()), "{number}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_digits_of_a_float4_are_read_back_as_it(bits: u32) {
            let (value, mut decimal) = (f32::from_bits(bits), Decimal::default());
            proptest::prop_assert_eq!(decimal.read_f32(value), value.is_finite());
            if value.is_finite() {
                let text = format!("{}e{}", String::from_utf8(decimal.digits.clone()).unwrap(), decimal.exponent);
                let read = if decimal.is_zero() { 0.0 } else { text.parse::<f32>().unwrap() };
                proptest::prop_assert_eq!(read.to_bits(), value.abs().to_bits());
                proptest::prop_assert_eq!(decimal.is_negative, value.is_sign_negative());
            }
        }

        #[test]
        fn integers_come_back(value: i64, scale in 0_i32..5) {
            let mut decimal = Decimal::default();
            decimal.read_i64(value);
            proptest::prop_assert_eq!(decimal.scaled(0), Ok(value));
            let expected = i128::from(value) * 10_i128.pow(scale.unsigned_abs());
            proptest::prop_assert_eq!(decimal.scaled(scale).ok(), i64::try_from(expected).ok());
        }

        #[test]
        fn nothing_panics(text in "[ +-]{0,2}[0-9]{0,30}\\.?[0-9]{0,30}([eE][+-]?[0-9]{0,12})?") {
            if let Some(decimal) = Decimal::parse(text.as_bytes()) {
                let _ = decimal.scaled(6);
                proptest::prop_assert!(decimal.digits.first() != Some(&b'0') && decimal.digits.last() != Some(&b'0'));
            }
        }
    }
}

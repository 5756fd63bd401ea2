//! The text of a `pg_lsn`. Since PostgreSQL 19 its second half always has eight digits (`0/000001F0`); before, it had as many as it needs
//! (`0/1F0`). Both are read by every version. A row that was written by one and read back from the other is the same row.

/// The fields of a table's rows that hold positions in the log, and the form that they are compared in. Empty where server and
/// snapshot write them alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LsnFields {
    fields: Vec<usize>,
    form: LsnForm,
}

/// How long the second half is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LsnForm {
    /// As many digits as it needs.
    #[default]
    Short,
    /// Eight digits.
    Padded,
}

impl LsnForm {
    /// What servers of a major version write.
    pub fn of(major: u32) -> Self {
        if major < 19 { Self::Short } else { Self::Padded }
    }
}

impl LsnFields {
    /// These fields of each row, counted from 0.
    pub fn new(fields: Vec<usize>, form: LsnForm) -> Self {
        Self { fields, form }
    }

    /// Whether rows are taken as they are.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Appends a row of COPY text, without its line end, with its positions in the wanted form.
    pub fn write_row(&self, row: &[u8], out: &mut Vec<u8>) {
        for (number, field) in row.split(|byte| *byte == b'\t').enumerate() {
            if number > 0 {
                out.push(b'\t');
            }
            if self.fields.contains(&number) {
                self.write_field(field, out);
            } else {
                out.extend_from_slice(field);
            }
        }
    }

    /// One position, or an array of them: nothing in it but positions has a slash.
    fn write_field(&self, field: &[u8], out: &mut Vec<u8>) {
        const DIGITS: usize = 8;
        let mut rest = field;
        while let Some(slash) = rest.iter().position(|byte| *byte == b'/') {
            let (head, tail) = rest.split_at(slash + 1);
            out.extend_from_slice(head);
            let length = tail.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let (half, after) = tail.split_at(length);
            match self.form {
                LsnForm::Short => {
                    let zeros = half.iter().take_while(|byte| **byte == b'0').count();
                    out.extend_from_slice(&half[zeros.min(length.saturating_sub(1))..]);
                }
                LsnForm::Padded => {
                    out.extend(std::iter::repeat_n(b'0', DIGITS.saturating_sub(length)));
                    out.extend_from_slice(half);
                }
            }
            rest = after;
        }
        out.extend_from_slice(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(row: &str, fields: &[usize], form: LsnForm) -> String {
        let mut out = Vec::new();
        LsnFields::new(fields.to_vec(), form).write_row(row.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn positions_take_the_form_of_either_version_and_nothing_else_is_touched() {
        let short = "7\t0/0\t{16/B374D848,NULL,0/1F0}\t\\N\t0/00\t[2:2]={FFFFFFFF/1}";
        let padded = "7\t0/00000000\t{16/B374D848,NULL,0/000001F0}\t\\N\t0/00\t[2:2]={FFFFFFFF/00000001}";
        for row in [short, padded] {
            assert_eq!(written(row, &[1, 2, 3, 5], LsnForm::Short), short);
            assert_eq!(written(row, &[1, 2, 3, 5], LsnForm::Padded), padded);
            assert_eq!(written(row, &[], LsnForm::Padded), row);
        }
        assert_eq!(written("", &[0], LsnForm::Short), "");
        assert_eq!((LsnForm::of(18), LsnForm::of(19)), (LsnForm::Short, LsnForm::Padded));
    }
}

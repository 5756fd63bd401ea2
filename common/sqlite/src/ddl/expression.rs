//! Expressions of SQLite in PostgreSQL's SQL, where they mean the same. What does not is refused with the reason: a constraint
//! that means something else is worse than none.

use common::ident::literal;
use sqlite3_parser::{
    Bump,
    ast::{Expr, LikeOperator, Literal, Operator, UnaryOperator},
};

use super::kind::{Kind, Known};
use crate::{sql, target::Target};

/// The columns of the table.
pub(super) struct Scope<'a>(pub &'a [Known]);

/// SQL of PostgreSQL with its kind.
#[derive(Debug, Clone)]
struct Made {
    sql: String,
    kind: Kind,
}

type Outcome = Result<Made, String>;

/// How deep an expression is followed: SQLite's own limit is 1000.
const DEPTH: usize = 200;

fn made(sql: impl Into<String>, kind: Kind) -> Outcome {
    Ok(Made { sql: sql.into(), kind })
}

impl Scope<'_> {
    /// An expression that is true or false.
    ///
    /// # Errors
    /// Why it has no translation.
    pub fn condition(&self, text: &str) -> Result<String, String> {
        let bump = Bump::new();
        self.condition_of(sql::expression(&bump, text)?)
    }

    /// The same of a tree.
    pub fn condition_of(&self, expression: &Expr<'_>) -> Result<String, String> {
        as_condition(self.any(expression, DEPTH)?)
    }

    /// An expression for a generated column of a type.
    pub fn generated(&self, text: &str, target: &Target) -> Result<String, String> {
        let bump = Bump::new();
        let made = self.any(sql::expression(&bump, text)?, DEPTH)?;
        if made.kind.fits(target) {
            Ok(made.sql)
        } else {
            Err(format!("PostgreSQL computes a value of another kind than {target}"))
        }
    }

    /// An expression with a value, for an index.
    pub fn value(&self, text: &str) -> Result<String, String> {
        let bump = Bump::new();
        self.value_of(sql::expression(&bump, text)?)
    }

    /// The same of a tree.
    pub fn value_of(&self, expression: &Expr<'_>) -> Result<String, String> {
        self.any(expression, DEPTH).map(|made| made.sql)
    }

    fn any(&self, expression: &Expr<'_>, depth: usize) -> Outcome {
        let depth = depth.checked_sub(1).ok_or_else(|| format!("it is nested deeper than {DEPTH} levels"))?;
        match expression {
            Expr::Parenthesized(inner) => match inner.as_slice() {
                [only] => {
                    let inner = self.any(only, depth)?;
                    made(format!("({})", inner.sql), inner.kind)
                }
                _ => Err("it compares rows".to_owned()),
            },
            Expr::Literal(literal) => constant(literal),
            Expr::Id(id) => self.column(None, id.0),
            Expr::Name(name) => self.column(None, name.0),
            Expr::Qualified(table, name) => self.column(Some(table.0), name.0),
            Expr::Unary(operator, inner) => self.unary(*operator, inner, depth),
            Expr::Binary(left, operator, right) => self.binary(left, *operator, right, depth),
            Expr::IsNull(inner) => made(format!("{} IS NULL", self.operand(inner, depth)?.sql), Kind::Bool),
            Expr::NotNull(inner) => {
                made(format!("{} IS NOT NULL", self.operand(inner, depth)?.sql), Kind::Bool)
            }
            Expr::Between { lhs, not, start, end } => {
                let (value, low) = self.ordered(lhs, start, depth)?;
                let (_, high) = self.ordered(lhs, end, depth)?;
                made(format!("{value} {}BETWEEN {low} AND {high}", negated(*not)), Kind::Bool)
            }
            Expr::InList { lhs, not, rhs: Some(list) } if !list.is_empty() => {
                let mut values = Vec::new();
                let mut value = String::new();
                for element in *list {
                    let (left, right) = self.pair(lhs, element, depth)?;
                    value = left;
                    values.push(right);
                }
                made(format!("{value} {}IN ({})", negated(*not), values.join(", ")), Kind::Bool)
            }
            Expr::Like { lhs, not, op: LikeOperator::Like, rhs, escape } => {
                self.like(lhs, *not, rhs, *escape, depth)
            }
            Expr::Like { op, .. } => Err(format!("{} has no translation", format!("{op:?}").to_uppercase())),
            Expr::Case { base, when_then_pairs, else_expr } => {
                self.case(*base, when_then_pairs, *else_expr, depth)
            }
            Expr::FunctionCall { name, distinctness: None, args, order_by: None, filter_over: None } => {
                self.call(&sql::unquoted(name.0).to_ascii_lowercase(), args.unwrap_or_default(), depth)
            }
            Expr::Collate(..) => Err("it names a collation of SQLite".to_owned()),
            Expr::Cast { .. } => {
                Err("CAST reads text to the first letter that is no digit, and never fails".to_owned())
            }
            Expr::Exists(_) | Expr::Subquery(_) | Expr::InSelect { .. } | Expr::InTable { .. } => {
                Err("it has a subquery".to_owned())
            }
            _ => Err("this kind of expression has no translation".to_owned()),
        }
    }

    fn column(&self, table: Option<&str>, name: &str) -> Outcome {
        let bare = sql::unquoted(name);
        let table = table.map(sql::unquoted);
        let is_meant = |known: &&Known| {
            known.name.eq_ignore_ascii_case(&bare)
                && table.as_ref().is_none_or(|table| known.table.eq_ignore_ascii_case(table))
        };
        let mut meant = self.0.iter().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(known), None) => return made(known.sql.clone(), known.kind),
            (Some(_), Some(_)) => {
                return Err(format!("{} may be several columns", common::ident::printable(&bare)));
            }
            (None, _) => {}
        }
        match name.as_bytes().first() {
            // A name in quotes that no column has is a string.
            Some(b'"') if table.is_none() => made(literal(&bare), Kind::Word),
            _ if bare.eq_ignore_ascii_case("true") => made("true", Kind::Bool),
            _ if bare.eq_ignore_ascii_case("false") => made("false", Kind::Bool),
            _ => Err(format!("{} is no column of the table", common::ident::printable(&bare))),
        }
    }

    /// An operand, in brackets where it is more than a name or a constant.
    fn operand(&self, expression: &Expr<'_>, depth: usize) -> Outcome {
        let inner = self.any(expression, depth)?;
        let is_simple = matches!(
            expression,
            Expr::Literal(_)
                | Expr::Id(_)
                | Expr::Name(_)
                | Expr::Qualified(..)
                | Expr::Parenthesized(_)
                | Expr::FunctionCall { .. }
        );
        if is_simple { Ok(inner) } else { made(format!("({})", inner.sql), inner.kind) }
    }

    /// Two operands that are compared: of kinds between which a comparison means the same.
    fn pair(&self, left: &Expr<'_>, right: &Expr<'_>, depth: usize) -> Result<(String, String), String> {
        if self.has_collation(left) || self.has_collation(right) {
            return Err("the comparison ignores case or blanks, by the column's collation".to_owned());
        }
        let (left, right) = (self.operand(left, depth)?, self.operand(right, depth)?);
        let fits = match (left.kind, right.kind) {
            (Kind::Null, _) | (_, Kind::Null) => true,
            (Kind::Bool, Kind::Integer) => return Ok((left.sql, truth(&right)?)),
            (Kind::Integer, Kind::Bool) => return Ok((truth(&left)?, right.sql)),
            (a, b) if a.is_number() && b.is_number() => true,
            (a, b) if a.is_text() && b.is_text() => true,
            (a, b) => a == b && a != Kind::Other,
        };
        if fits {
            Ok((left.sql, right.sql))
        } else {
            Err("it compares values of different kinds, which SQLite orders by their storage class"
                .to_owned())
        }
    }

    /// The same for an order: SQLite's of text is that of its bytes, as in the collation "C".
    fn ordered(&self, left: &Expr<'_>, right: &Expr<'_>, depth: usize) -> Result<(String, String), String> {
        let (one, two) = self.pair(left, right, depth)?;
        let is_text = self.operand(left, depth)?.kind.is_text() || self.operand(right, depth)?.kind.is_text();
        Ok(if is_text { (format!("{one} COLLATE \"C\""), two) } else { (one, two) })
    }

    fn has_collation(&self, expression: &Expr<'_>) -> bool {
        let name = match expression {
            Expr::Id(id) => id.0,
            Expr::Name(name) | Expr::Qualified(_, name) => name.0,
            Expr::Parenthesized(inner) => return inner.iter().any(|inner| self.has_collation(inner)),
            _ => return false,
        };
        let bare = sql::unquoted(name);
        self.0.iter().any(|known| known.has_collation && known.name.eq_ignore_ascii_case(&bare))
    }

    fn unary(&self, operator: UnaryOperator, inner: &Expr<'_>, depth: usize) -> Outcome {
        let inner = self.operand(inner, depth)?;
        match operator {
            UnaryOperator::Not => made(format!("NOT ({})", as_condition(inner)?), Kind::Bool),
            UnaryOperator::Negative if inner.kind.is_number() => made(format!("-{}", inner.sql), inner.kind),
            UnaryOperator::Positive => Ok(inner),
            _ => Err("this operator has no translation for such a value".to_owned()),
        }
    }

    fn binary(&self, left: &Expr<'_>, operator: Operator, right: &Expr<'_>, depth: usize) -> Outcome {
        let compared = |sign: &str| {
            let is_order = matches!(sign, "<" | "<=" | ">" | ">=");
            let (left, right) =
                if is_order { self.ordered(left, right, depth)? } else { self.pair(left, right, depth)? };
            made(format!("{left} {sign} {right}"), Kind::Bool)
        };
        let is_null = matches!(right, Expr::Literal(Literal::Null));
        match operator {
            Operator::Is if is_null => {
                made(format!("{} IS NULL", self.operand(left, depth)?.sql), Kind::Bool)
            }
            Operator::IsNot if is_null => {
                made(format!("{} IS NOT NULL", self.operand(left, depth)?.sql), Kind::Bool)
            }
            Operator::And | Operator::Or => {
                let (left, right) = (self.operand(left, depth)?, self.operand(right, depth)?);
                let sign = if operator == Operator::And { "AND" } else { "OR" };
                made(format!("{} {sign} {}", as_condition(left)?, as_condition(right)?), Kind::Bool)
            }
            Operator::Equals => compared("="),
            Operator::NotEquals => compared("<>"),
            Operator::Less => compared("<"),
            Operator::LessEquals => compared("<="),
            Operator::Greater => compared(">"),
            Operator::GreaterEquals => compared(">="),
            Operator::Is => compared("IS NOT DISTINCT FROM"),
            Operator::IsNot => compared("IS DISTINCT FROM"),
            Operator::Add
            | Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Modulus => self.arithmetic(left, operator, right, depth),
            Operator::Concat => {
                let (left, right) = (self.operand(left, depth)?, self.operand(right, depth)?);
                if left.kind.is_text() && right.kind.is_text() {
                    made(format!("{} || {}", left.sql, right.sql), Kind::Text)
                } else {
                    Err("it joins values that are no text".to_owned())
                }
            }
            _ => Err("this operator has no translation".to_owned()),
        }
    }

    fn arithmetic(&self, left: &Expr<'_>, operator: Operator, right: &Expr<'_>, depth: usize) -> Outcome {
        let (left, right) = (self.operand(left, depth)?, self.operand(right, depth)?);
        let sign = match operator {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide | Operator::Modulus => {
                return Err("dividing by zero is NULL in SQLite, and an error in PostgreSQL".to_owned());
            }
            _ => return Err("this operator has no translation".to_owned()),
        };
        match (left.kind, right.kind) {
            (Kind::Integer, Kind::Integer) => {
                made(format!("{} {sign} {}", left.sql, right.sql), Kind::Integer)
            }
            (a, b) if a.is_number() && b.is_number() && (a == Kind::Fraction || b == Kind::Fraction) => {
                made(format!("{} {sign} {}", left.sql, right.sql), Kind::Fraction)
            }
            (a, b) if a.is_number() && b.is_number() => {
                Err("it computes with decimals, for which SQLite takes doubles".to_owned())
            }
            _ => Err("it computes with values that are no numbers".to_owned()),
        }
    }

    /// SQLite's LIKE ignores the case of ASCII letters alone, which is what `lower` does in the collation "C".
    fn like(
        &self,
        value: &Expr<'_>,
        not: bool,
        pattern: &Expr<'_>,
        escape: Option<&Expr<'_>>,
        depth: usize,
    ) -> Outcome {
        let (value, pattern) = (self.operand(value, depth)?, self.operand(pattern, depth)?);
        if !value.kind.is_text() || !pattern.kind.is_text() {
            return Err("LIKE of values that are no text".to_owned());
        }
        let escape = match escape {
            None => "''".to_owned(),
            Some(escape) => self.operand(escape, depth)?.sql,
        };
        let sql = format!(
            "{} {}LIKE {} ESCAPE {escape}",
            in_lower_case(&value.sql),
            negated(not),
            in_lower_case(&pattern.sql)
        );
        made(sql, Kind::Bool)
    }

    fn case(
        &self,
        base: Option<&Expr<'_>>,
        pairs: &[(Expr<'_>, Expr<'_>)],
        otherwise: Option<&Expr<'_>>,
        depth: usize,
    ) -> Outcome {
        if base.is_some() {
            return Err("CASE with a value to compare has no translation".to_owned());
        }
        let mut sql = "CASE".to_owned();
        let mut kinds = Vec::new();
        for (when, then) in pairs {
            let then = self.any(then, depth)?;
            sql.push_str(&format!(" WHEN {} THEN {}", as_condition(self.any(when, depth)?)?, then.sql));
            kinds.push(then.kind);
        }
        if let Some(otherwise) = otherwise {
            let otherwise = self.any(otherwise, depth)?;
            sql.push_str(&format!(" ELSE {}", otherwise.sql));
            kinds.push(otherwise.kind);
        }
        sql.push_str(" END");
        made(sql, common_kind(&kinds)?)
    }

    fn call(&self, name: &str, arguments: &[Expr<'_>], depth: usize) -> Outcome {
        let arguments = arguments
            .iter()
            .map(|argument| self.any(argument, depth))
            .collect::<Result<Vec<Made>, String>>()?;
        let no_translation = || Err(format!("the function {name} has no translation for these values"));
        match (name, arguments.as_slice()) {
            ("length", [value]) if value.kind.is_text() => {
                made(format!("length({})", value.sql), Kind::Integer)
            }
            ("length", [value]) if value.kind == Kind::Bytes => {
                made(format!("octet_length({})", value.sql), Kind::Integer)
            }
            ("lower" | "upper", [value]) if value.kind.is_text() => {
                made(format!("{name}({} COLLATE \"C\")", value.sql), Kind::Text)
            }
            ("trim" | "ltrim" | "rtrim", [value]) if value.kind.is_text() => {
                let name = if name == "trim" { "btrim" } else { name };
                made(format!("{name}({})", value.sql), Kind::Text)
            }
            ("abs", [value]) if value.kind.is_number() => made(format!("abs({})", value.sql), value.kind),
            ("instr", [text, part]) if text.kind.is_text() && part.kind.is_text() => {
                made(format!("strpos({}, {})", text.sql, part.sql), Kind::Integer)
            }
            ("coalesce" | "ifnull", values) if values.len() > 1 => {
                let kinds: Vec<Kind> = values.iter().map(|value| value.kind).collect();
                let list: Vec<&str> = values.iter().map(|value| value.sql.as_str()).collect();
                made(format!("coalesce({})", list.join(", ")), common_kind(&kinds)?)
            }
            _ => no_translation(),
        }
    }
}

/// In the collation "C" only ASCII letters have a case.
pub(super) fn in_lower_case(sql: &str) -> String {
    format!("lower({sql} COLLATE \"C\")")
}

fn negated(not: bool) -> &'static str {
    if not { "NOT " } else { "" }
}

fn truth(made: &Made) -> Result<String, String> {
    match made.sql.as_str() {
        "0" => Ok("false".to_owned()),
        "1" => Ok("true".to_owned()),
        _ => Err("it compares a boolean with a number".to_owned()),
    }
}

fn as_condition(made: Made) -> Result<String, String> {
    match made.kind {
        Kind::Bool | Kind::Null => Ok(made.sql),
        kind if kind.is_number() => Ok(format!("({}) <> 0", made.sql)),
        _ => Err("it takes a value for true or false that is no number".to_owned()),
    }
}

fn common_kind(kinds: &[Kind]) -> Result<Kind, String> {
    let mut known = kinds.iter().copied().filter(|kind| *kind != Kind::Null);
    let first = known.next().unwrap_or(Kind::Null);
    known.try_fold(first, |one, two| match (one, two) {
        (one, two) if one == two => Ok(one),
        (one, two) if one.is_number() && two.is_number() => {
            Ok(if one == Kind::Fraction || two == Kind::Fraction { Kind::Fraction } else { Kind::Decimal })
        }
        (one, two) if one.is_text() && two.is_text() => Ok(Kind::Text),
        _ => Err("its values are of different kinds".to_owned()),
    })
}

fn constant(value: &Literal<'_>) -> Outcome {
    match value {
        Literal::Null => made("NULL", Kind::Null),
        Literal::String(text) => made(literal(&sql::unquoted(text)), Kind::Word),
        Literal::Numeric(text) => {
            let digits = text.replace('_', "");
            let lower = digits.to_ascii_lowercase();
            if let Some(hex) = lower.strip_prefix("0x") {
                let value = u64::from_str_radix(hex, 16).map_err(|_| "a number is too big".to_owned())?;
                return made(value.cast_signed().to_string(), Kind::Integer);
            }
            if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                let is_integer = digits.parse::<i64>().is_ok();
                return made(digits, if is_integer { Kind::Integer } else { Kind::Decimal });
            }
            made(digits, Kind::Decimal)
        }
        Literal::Blob(_) => Err("it has a blob".to_owned()),
        Literal::Keyword(word) if word.eq_ignore_ascii_case("true") => made("true", Kind::Bool),
        Literal::Keyword(word) if word.eq_ignore_ascii_case("false") => made("false", Kind::Bool),
        Literal::Keyword(_) => Err("a keyword stands in the place of a value".to_owned()),
        Literal::CurrentDate | Literal::CurrentTime | Literal::CurrentTimestamp => {
            Err("it depends on the clock".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;

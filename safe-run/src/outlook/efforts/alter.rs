//! What one change of an ALTER TABLE makes the server do with the rows.

use std::collections::BTreeSet;

use sql::statement::{
    TableName,
    changes::{self, Change, Constraint, Kept, NewColumn, Source, TypeName, Using},
};

use super::{Efforts, What, unclear_index};
use crate::outlook::{
    facts::{self, Catalog, Column, Facts, Index},
    known::{ForeignKey, Table},
    types,
};

impl Efforts<'_> {
    pub(super) fn change<'k>(
        &mut self,
        table: &Table,
        facts: &mut Facts,
        catalog: &mut Catalog,
        change: &Change,
        before: &impl Fn(&TableName) -> Option<&'k Table>,
    ) {
        let all = facts.indexes.len();
        match change {
            Change::AddColumn(column) => self.add_column(table, facts, catalog, column),
            Change::DropColumn(column) => {
                facts.columns.remove(column);
                facts.constraints.retain(|known| !known.columns.contains(column));
                facts.indexes.retain(|index| !index.of.contains(column));
            }
            Change::RenameColumn(old, new) => facts.rename(old, new),
            Change::ColumnType { column, to, is_collated, using } => {
                self.column_type(table, facts, catalog, (column, to, *is_collated, using.as_ref()));
            }
            Change::SetNotNull(column) => self.set_not_null(table, facts, column),
            Change::DropNotNull(column) => {
                facts.constraints.retain(|known| known.kind != 'n' || !known.columns.contains(column));
                if let Some(known) = facts.columns.get_mut(column) {
                    known.is_not_null = false;
                }
            }
            Change::SetExpression(column) => {
                if facts.columns.get(column).is_some_and(|known| known.is_stored) {
                    self.add(table, What::Rewrite, format!("{column} is computed anew"), all);
                }
            }
            Change::AddConstraint { name, constraint, is_deferred } => {
                self.add_constraint(table, facts, name.as_deref(), constraint, *is_deferred);
            }
            Change::DropConstraint(name) => {
                facts.constraints.retain(|known| known.name != *name);
                facts.indexes.retain(|index| index.name != *name);
            }
            Change::Validate(name) => {
                if let Some(known) =
                    facts.constraints.iter_mut().find(|known| known.name == *name && !known.is_valid)
                {
                    known.is_valid = true;
                    let columns = known.columns.clone();
                    match known.kind {
                        'f' => self.look_up(table, &columns, name),
                        _ => self.add(table, What::Scan, format!("each is held against {name}"), 0),
                    }
                }
            }
            Change::Attach { partition, is_default } => {
                if let Some(child) = before(partition) {
                    self.attach(facts, catalog, child, *is_default);
                }
                self.default_of(facts);
            }
            Change::Logged(logged) if facts.is_logged != *logged && facts.kind != 'p' => {
                facts.is_logged = *logged;
                let word = if *logged { "LOGGED" } else { "UNLOGGED" };
                self.add(table, What::Rewrite, format!("SET {word}"), all);
            }
            Change::AccessMethod(method) if facts.kind != 'p' => {
                let method = method.as_ref().unwrap_or(&catalog.default_method);
                if facts.method != *method {
                    facts.method.clone_from(method);
                    self.add(table, What::Rewrite, format!("SET ACCESS METHOD {method}"), all);
                }
            }
            Change::Tablespace(to) if facts.kind != 'p' && facts.tablespace != *to => {
                facts.tablespace.clone_from(to);
                self.add(table, What::Rewrite, format!("it is copied to the tablespace {to}"), 0);
            }
            Change::Logged(_) | Change::AccessMethod(_) | Change::Tablespace(_) => {}
        }
    }

    fn add_column(&mut self, table: &Table, facts: &mut Facts, catalog: &Catalog, column: &NewColumn) {
        let name = &column.name;
        if facts.columns.contains_key(name) {
            return;
        }
        let all = facts.indexes.len();
        let of = catalog.type_of(&column.of);
        let mut why = match &column.source {
            Source::Sequence => Some(format!("{name} gets a number in each row")),
            // PostgreSQL 18 computes it when it is read, unless STORED is written; before, it must be.
            Source::Generated(kept) => {
                (*kept == Some(Kept::Stored)).then(|| format!("{name} is computed for each row"))
            }
            Source::Default(expression) => (catalog.is_volatile(&changes::called(expression)) == Some(true))
                .then(|| format!("{name} gets a default that is another one in each row ({expression})")),
            Source::Nothing => None,
        };
        if let Some((oid, _)) = of.filter(|(oid, _)| why.is_none() && catalog.types.is_constrained(*oid)) {
            why = Some(format!("the domain {} of {name} has a constraint", catalog.types.name(oid)));
        }
        let is_rewritten = why.is_some() && facts.kind != 'f';
        if let Some(why) = why.filter(|_| is_rewritten) {
            self.add(table, What::Rewrite, why, all);
        } else if column.is_not_null && column.source == Source::Nothing {
            self.add(
                table,
                What::Scan,
                format!("{name} is looked at for NULL, which every row has there"),
                0,
            );
        }
        facts.columns.insert(
            name.clone(),
            Column {
                of: of.map(|(oid, _)| oid),
                modifier: of.and_then(|(_, modifier)| modifier).unwrap_or(-1),
                is_not_null: column.is_not_null,
                is_collated: false,
                is_stored: matches!(column.source, Source::Generated(Some(Kept::Stored))),
            },
        );
        for constraint in &column.constraints {
            // Where every row has NULL there, no key is looked up.
            let is_deferred = matches!(constraint, Constraint::ForeignKey { .. })
                && !matches!(column.source, Source::Default(_));
            self.add_constraint(table, facts, None, constraint, is_deferred);
        }
    }

    fn set_not_null(&mut self, table: &Table, facts: &mut Facts, column: &str) {
        if !facts.columns.contains_key(column) || facts.is_proved_not_null(column) {
            // Proved, or of an unknown history.
        } else {
            self.add(table, What::Scan, format!("{column} is looked at for NULL"), 0);
        }
        if let Some(known) = facts.columns.get_mut(column) {
            known.is_not_null = true;
        }
    }

    fn column_type(
        &mut self,
        table: &Table,
        facts: &mut Facts,
        catalog: &Catalog,
        (column, to, is_collated, using): (&str, &TypeName, bool, Option<&Using>),
    ) {
        let Some(known) = facts.columns.get(column).cloned() else { return };
        let target = catalog.type_of(to);
        let change = match (known.of, target, using) {
            (_, _, Some(Using::Computed)) => types::Change::Computed,
            (Some(from), Some(target), None) => catalog.types.cast((from, known.modifier), &[target]),
            (Some(from), Some(target), Some(Using::Cast(types))) => {
                let steps: Option<Vec<_>> = types.iter().map(|of| catalog.type_of(of)).collect();
                match steps {
                    Some(mut steps) => {
                        steps.push(target);
                        catalog.types.cast((from, known.modifier), &steps)
                    }
                    None => types::Change::Unknown,
                }
            }
            _ => types::Change::Unknown,
        };
        let all = facts.indexes.len();
        let names = |oid: Option<u32>| {
            oid.map(|oid| catalog.types.name(oid).to_owned()).filter(|name| !name.is_empty())
        };
        match change {
            types::Change::Computed => {
                let why = match (names(known.of), names(target.map(|(oid, _)| oid))) {
                    (Some(from), Some(to)) if from != to => format!("{column} goes from {from} to {to}"),
                    _ => format!("{column} gets another type"),
                };
                self.add(table, What::Rewrite, why, all);
            }
            types::Change::Kept => self.kept(table, facts, catalog, column, (&known, target, is_collated)),
            types::Change::Unknown => {}
        }
        if change == types::Change::Computed {
            let keys: Vec<&ForeignKey> = self.known.keys_of(table, column).collect();
            for key in keys {
                self.look_up(&key.from, &key.columns[0], &key.name);
            }
        }
        if let Some(known) = facts.columns.get_mut(column) {
            known.of = target.map(|(oid, _)| oid);
            known.modifier = target.and_then(|(_, modifier)| modifier).unwrap_or(-1);
            known.is_collated = is_collated;
        }
    }

    /// The values stay: what is made of them may not.
    fn kept(
        &mut self,
        table: &Table,
        facts: &Facts,
        catalog: &Catalog,
        column: &str,
        (known, target, is_collated): (&Column, Option<(u32, Option<i32>)>, bool),
    ) {
        let is_checked = facts.constraints.iter().any(|constraint| {
            constraint.kind == 'c'
                && constraint.is_valid
                && constraint.columns.iter().any(|name| name == column)
        });
        if is_checked {
            self.add(table, What::Scan, format!("the CHECKs of {column} are made anew"), 0);
        }
        let (Some(from), Some((to, _))) = (known.of, target) else { return };
        if is_collated {
            return;
        }
        let is_served = catalog.types.share_an_index(from, to) && !known.is_collated;
        let over = |index: &&Index| index.of.iter().any(|name| name == column);
        let built = facts.indexes.iter().filter(over).filter(|index| !is_served || !index.is_plain).count();
        if built > 0 {
            self.add(table, What::Index, format!("those over {column} are made anew"), built);
        }
    }

    fn add_constraint(
        &mut self,
        table: &Table,
        facts: &mut Facts,
        name: Option<&str>,
        constraint: &Constraint,
        is_deferred: bool,
    ) {
        let mut made = facts::Known {
            name: name.unwrap_or_default().to_owned(),
            kind: 'c',
            columns: Vec::new(),
            is_valid: !is_deferred,
            not_null: BTreeSet::new(),
        };
        match constraint {
            Constraint::Check(text) => {
                made.not_null = facts
                    .columns
                    .keys()
                    .filter(|column| facts::says_not_null(text, column))
                    .cloned()
                    .collect();
                made.columns =
                    facts.columns.keys().filter(|column| text.contains(column.as_str())).cloned().collect();
                if !is_deferred {
                    let label = name.unwrap_or("the new CHECK");
                    self.add(table, What::Scan, format!("each is held against {label}"), 0);
                }
            }
            Constraint::NotNull(column) => {
                (made.kind, made.columns) = ('n', vec![column.clone()]);
                made.not_null.insert(column.clone());
                if !is_deferred {
                    self.set_not_null(table, facts, column);
                }
            }
            Constraint::ForeignKey { columns, .. } => {
                (made.kind, made.columns) = ('f', columns.clone());
                if !is_deferred {
                    self.look_up(table, columns, name.unwrap_or("the new foreign key"));
                }
            }
            Constraint::Key { columns, is_primary, is_built } => {
                made.kind = if *is_primary { 'p' } else { 'u' };
                made.columns.clone_from(columns);
                if *is_primary {
                    for column in columns {
                        self.set_not_null(table, facts, column);
                    }
                }
                if !is_built {
                    let why = if *is_primary { "PRIMARY KEY" } else { "a constraint" };
                    self.add(table, What::Index, why.to_owned(), 1);
                    let index =
                        Index { name: made.name.clone(), columns: columns.clone(), ..unclear_index() };
                    facts.indexes.push(index);
                }
            }
        }
        facts.constraints.push(made);
    }

    fn look_up(&mut self, from: &Table, columns: &[String], key: &str) {
        self.add(from, What::Lookup, format!("each {} is looked up for {key}", columns.join(", ")), 0);
    }

    /// A table becomes a partition.
    fn attach(&mut self, parent: &Facts, catalog: &Catalog, child: &Table, is_default: bool) {
        let (Some(how), Some(facts)) = (&parent.partitioned, catalog.tables.get(&child.oid)) else { return };
        let may_prove = facts.constraints.iter().any(|known| {
            known.kind == 'c'
                && known.is_valid
                && (how.columns.is_empty() || known.columns.iter().any(|column| how.columns.contains(column)))
        });
        if !(may_prove && how.by != 'h' || is_default && how.count == 0 || facts.kind == 'f') {
            self.add(child, What::Scan, "each is held against the bounds of the partition".to_owned(), 0);
        }
        if parent.indexes.iter().any(|index| !index.is_plain) || facts.kind == 'f' {
            return;
        }
        let mut own: Vec<&Index> = facts.indexes.iter().filter(|index| index.is_plain).collect();
        let mut built = 0;
        for index in &parent.indexes {
            let serves = |own: &&Index| {
                (&own.columns, own.is_unique, &own.method) == (&index.columns, index.is_unique, &index.method)
            };
            match own.iter().position(serves) {
                Some(at) => drop(own.remove(at)),
                None => built += 1,
            }
        }
        if built > 0 {
            self.add(child, What::Index, "as its new parent has them".to_owned(), built);
        }
    }

    /// A new partition takes rows away from the default one: it may have none of them.
    pub(super) fn default_partition(&mut self, parent: &Table, catalog: &Catalog) {
        if let Some(facts) = catalog.tables.get(&parent.oid) {
            self.default_of(facts);
        }
    }

    fn default_of(&mut self, parent: &Facts) {
        let Some(oid) = parent.partitioned.as_ref().and_then(|how| how.default) else { return };
        if let Some(table) = self.known.default_partition(oid).filter(|table| !table.may_prove_bounds) {
            self.add(table, What::Scan, "it must have no row of the new partition".to_owned(), 0);
        }
    }
}

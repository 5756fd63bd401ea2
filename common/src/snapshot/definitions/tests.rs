use super::*;

const TEXT: &str = r#"
--
-- Name: mood; Type: TYPE; Schema: public; Owner: x
--
CREATE TYPE public.mood AS ENUM (
    'so, so',
    'it''s'
);
CREATE DOMAIN public.positive AS numeric(10,2) NOT NULL
	CONSTRAINT positive_check CHECK ((VALUE > (0)::numeric));
CREATE DOMAIN public."Upper" AS public.positive;
CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS $_$ CREATE TABLE public.no (i int); $_$;
CREATE UNLOGGED TABLE public.t (
    id integer NOT NULL,
    "a b" character varying(20) COLLATE pg_catalog."C" DEFAULT 'x, NOT NULL'::character varying,
    at timestamp(3) with time zone DEFAULT now() NOT NULL,
    m public.mood[],
    p public."Upper",
    g integer GENERATED ALWAYS AS ((id * 2)) STORED,
    n numeric(5,-2) CONSTRAINT has_name NOT NULL,
    CONSTRAINT t_check CHECK ((id > 0)),
    CONSTRAINT later NOT NULL m
);
ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (id, "a b");
CREATE TABLE public.child (
    own text
)
INHERITS (public.t);
CREATE TABLE other.nothing (
);
CREATE TABLE public.root (
    i integer NOT NULL
)
PARTITION BY HASH (i);
ALTER TABLE ONLY public.t ALTER COLUMN id SET DEFAULT nextval('public.s'::regclass);
"#;

fn column(name: &str, type_name: &str, not_null: bool) -> Column {
    Column { name: name.into(), type_name: type_name.into(), not_null, generated: name == "g" }
}

#[test]
fn tables_are_read_as_pg_dump_writes_them() {
    let found = Definitions::read(TEXT);
    let t = &found.tables[&QualifiedName::new("public", "t")];
    let columns = [
        column("id", "integer", true),
        column("a b", "character varying(20)", false),
        column("at", "timestamp(3) with time zone", true),
        column("m", "public.mood[]", true),
        column("p", "public.\"Upper\"", false),
        column("g", "integer", false),
        column("n", "numeric(5,-2)", true),
    ];
    assert_eq!(t.columns, columns);
    assert_eq!(t.key, ["id", "a b"]);
    let child = &found.tables[&QualifiedName::new("public", "child")];
    assert_eq!(child.columns.len(), 8);
    assert_eq!((child.columns[7].name.as_str(), child.key.len()), ("own", 0));
    assert!(found.tables[&QualifiedName::new("other", "nothing")].columns.is_empty());
    assert_eq!(found.tables[&QualifiedName::new("public", "root")].columns.len(), 1);
    assert_eq!(found.tables.len(), 4, "what stands in a function is none");
    let labels = Some(vec!["so, so".to_owned(), "it's".to_owned()]);
    assert_eq!(
        found.base_of("public.mood[]"),
        BaseType { name: "public.mood[]".into(), labels, not_null: false }
    );
    let numeric = BaseType { name: "numeric(10,2)".into(), labels: None, not_null: true };
    assert_eq!(found.base_of("public.\"Upper\""), numeric);
}

proptest::proptest! {
    #[test]
    fn reading_never_panics(text in "(CREATE TABLE |ALTER TABLE ONLY |a\\.b|[(),;'\"$E\\\\]|NOT NULL|\\PC|/\\*|\\*/|--|\n){0,40}") {
        let _ = Definitions::read(&text);
    }

    #[test]
    fn a_quoted_name_comes_back(name in "\\PC{1,12}") {
        let ident = crate::Ident::new(name.as_str());
        let found = Definitions::read(&format!("CREATE TABLE {ident}.{ident} (\n    {ident} text NOT NULL\n);"));
        let table = &found.tables[&QualifiedName::new(name.as_str(), name.as_str())];
        proptest::prop_assert_eq!(&table.columns, &[Column { name, type_name: "text".into(), not_null: true, generated: false }]);
    }
}

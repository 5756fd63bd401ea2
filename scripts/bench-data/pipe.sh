#!/bin/sh
# An exact copy of sqlite.py's database, as somebody writes it by hand: sh pipe.sh FILE PSQL URL
# Tables first, then one COPY after another with 17 digits for doubles, then keys, indexes and foreign keys.
set -eu
file=$1 psql=$2 url=$3
run() { "$psql" -X -q -v ON_ERROR_STOP=1 -d "$url" "$@"; }

run -c "
CREATE TABLE users (id bigint NOT NULL, email text NOT NULL, name varchar(80) NOT NULL, active boolean NOT NULL, score double precision,
                    created_at timestamp NOT NULL, born date);
CREATE TABLE products (id bigint NOT NULL, sku text NOT NULL, title text NOT NULL, price double precision NOT NULL, visible boolean NOT NULL,
                       description text);
CREATE TABLE orders (id bigint NOT NULL, user_id bigint NOT NULL, ordered_at timestamp NOT NULL, total double precision NOT NULL,
                     paid boolean NOT NULL, note text);
CREATE TABLE order_items (id bigint NOT NULL, order_id bigint NOT NULL, product_id bigint NOT NULL, quantity bigint NOT NULL,
                          price double precision NOT NULL, discount double precision);
CREATE TABLE events (id bigint NOT NULL, user_id bigint, kind varchar(20) NOT NULL, at timestamp NOT NULL, seconds double precision,
                     ok boolean, payload text);"

# NULL and the empty string have to differ: a NULL is written as \N.
copy() { sqlite3 -csv -readonly -nullvalue '\N' "$file" "SELECT $2 FROM $1" | run -c "COPY $1 FROM stdin WITH (FORMAT csv, NULL '\N')"; }
exact() { printf "CASE WHEN %s IS NULL THEN NULL ELSE printf('%%!.17g', %s) END" "$1" "$1"; }
copy users "id, email, name, active, $(exact score), created_at, born"
copy products "id, sku, title, $(exact price), visible, description"
copy orders "id, user_id, ordered_at, $(exact total), paid, note"
copy order_items "id, order_id, product_id, quantity, $(exact price), $(exact discount)"
copy events "id, user_id, kind, at, $(exact seconds), ok, payload"

run -c "
ALTER TABLE users ADD PRIMARY KEY (id), ADD UNIQUE (email);
ALTER TABLE products ADD PRIMARY KEY (id);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE order_items ADD PRIMARY KEY (id);
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX orders_user ON orders (user_id);
CREATE INDEX items_order ON order_items (order_id);
CREATE INDEX events_at ON events (at);
ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE order_items ADD FOREIGN KEY (order_id) REFERENCES orders, ADD FOREIGN KEY (product_id) REFERENCES products;
ANALYZE;"

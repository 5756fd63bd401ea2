CREATE INDEX orders_status ON orders (status, placed_at);
CREATE TABLE order_notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id integer NOT NULL REFERENCES orders,
    note text NOT NULL
);

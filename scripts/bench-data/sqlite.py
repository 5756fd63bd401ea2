"""Writes a SQLite database as an application would have: five tables, twelve columns of text, numbers, dates and booleans.

  python3 sqlite.py FILE ROWS      ROWS in all tables together
"""
import datetime
import random
import sqlite3
import sys

TABLES = """
CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, name VARCHAR(80) NOT NULL, active BOOLEAN NOT NULL,
                    score DOUBLE, created_at DATETIME NOT NULL, born DATE);
CREATE TABLE products (id INTEGER PRIMARY KEY, sku TEXT NOT NULL, title TEXT NOT NULL, price DOUBLE NOT NULL, visible BOOLEAN NOT NULL,
                       description TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL REFERENCES users, ordered_at DATETIME NOT NULL,
                     total DOUBLE NOT NULL, paid BOOLEAN NOT NULL, note TEXT);
CREATE TABLE order_items (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders, product_id INTEGER NOT NULL REFERENCES products,
                          quantity INTEGER NOT NULL, price DOUBLE NOT NULL, discount DOUBLE);
CREATE TABLE events (id INTEGER PRIMARY KEY, user_id INTEGER, kind VARCHAR(20) NOT NULL, at DATETIME NOT NULL, seconds DOUBLE, ok BOOLEAN,
                     payload TEXT);
CREATE INDEX orders_user ON orders (user_id);
CREATE INDEX items_order ON order_items (order_id);
CREATE INDEX events_at ON events (at);
"""
WORDS = ("amber birch cedar delta ember fjord grove haven inlet jetty knoll ledge marsh north ocean prairie quarry ridge "
         "shore tundra über vale würfel yard zenith").split()


def rows(table, count, users, products, orders):
    """The same in every run."""
    pick = random.Random(table)
    start = datetime.datetime(2021, 1, 1)

    def moment():
        return (start + datetime.timedelta(microseconds=pick.randrange(150_000_000) * 1_000_001)).isoformat(" ")

    def text(words):
        return " ".join(pick.choices(WORDS, k=words))
    for number in range(1, count + 1):
        if table == "users":
            yield (number, f"{text(1)}.{number}@example.org", text(2), pick.random() < 0.9, pick.gauss(0, 1000), moment(),
                   (start - datetime.timedelta(days=pick.randrange(20_000))).date().isoformat())
        elif table == "products":
            yield (number, f"SKU-{number:08}", text(4), round(pick.uniform(1, 900), 2), pick.random() < 0.8, text(20))
        elif table == "orders":
            yield (number, pick.randrange(users) + 1, moment(), round(pick.uniform(1, 9000), 2), pick.random() < 0.7,
                   text(6) if pick.random() < 0.3 else None)
        elif table == "order_items":
            yield (number, pick.randrange(orders) + 1, pick.randrange(products) + 1, pick.randrange(20) + 1, round(pick.uniform(1, 900), 2),
                   pick.random() if pick.random() < 0.1 else None)
        else:
            yield (number, pick.randrange(users) + 1, pick.choice(WORDS), moment(), pick.expovariate(0.01), pick.random() < 0.5, text(40))


def main():
    file, total = sys.argv[1], int(sys.argv[2])
    counts = {"users": total // 10, "products": total // 20, "orders": total // 4, "order_items": total * 2 // 5, "events": total // 5}
    connection = sqlite3.connect(file)
    connection.executescript("PRAGMA journal_mode = off; PRAGMA synchronous = off;" + TABLES)
    for table, count in counts.items():
        made = rows(table, count, counts["users"], counts["products"], counts["orders"])
        width = len(connection.execute(f"PRAGMA table_info({table})").fetchall())
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", made)
    connection.commit()
    connection.close()


if __name__ == "__main__":
    main()

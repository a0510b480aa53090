-- The application's side of the demo: a shop with its users. Tidemill's tables are in a schema of their own.

create schema shop;

create table shop.users (
    id text primary key,
    email text not null,
    name text not null
);

insert into shop.users (id, email, name) values
    ('1', 'zoe@example.com', 'Zoë & co'),
    ('2', 'ada@example.com', 'Ada'),
    ('3', 'grace@example.com', 'Grace'),
    ('4', 'mary@example.com', 'Mary'),
    ('5', 'hedy@example.com', 'Hedy'),
    ('6', 'annie@example.com', 'Annie');

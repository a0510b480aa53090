-- Gives back what was claimed under a token by a call whose answer was lost.
select tidemill.give_back($1::bigint, $2::bigint[], 'returned')

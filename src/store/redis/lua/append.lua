-- Appends to the ledger. KEYS[1] prefix · ARGV[1] entry · Output its number
return call('RPUSH', P .. 'ledger', pack('>I6', now) .. ARGV[1])

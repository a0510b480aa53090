-- half: every second job fails.
local half = {}

function half.name()
    return "half"
end

function half.handle(_, args)
    if args.user_id % 2 == 1 then
        return nil, "the odd ones fail"
    end
end

return half

#include "loadgen/users.h"

#include <stddef.h>

#include "core/base/check.h"
#include "core/base/ids.h"

uint32_t users_home(const struct users_layout *layout, uint64_t user)
{
    return partition_of(user).value % layout->volumes % layout->cores;
}

void users_assign(const struct users_layout *layout, uint64_t first, uint64_t *ids, uint32_t count)
{
    uint64_t next = first;

    HF_ASSERT(count % 2 == 0);
    HF_ASSERT(layout == NULL || (layout->cores > 1 && layout->volumes >= layout->cores));
    for (uint32_t i = 0; i < count; i += 2) {
        ids[i] = next++;
        if (layout != NULL) {
            const bool apart = i / 2 % 2 == 1;
            const uint32_t home = users_home(layout, ids[i]);

            while ((users_home(layout, next) != home) != apart) {
                next++;
            }
        }
        ids[i + 1] = next++;
    }
}

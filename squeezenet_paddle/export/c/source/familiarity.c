
/* ---- Images that are none of the classes; squeezenet_paddle/familiarity.py says how they are
 * told. */

static double length_of(const double *x, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += x[i] * x[i];
    return fmax(sqrt(sum), 1e-12);
}

/* The logarithm of the odds of a class against the others. */
static double log_odds(const float *logits, int class_id)
{
    double largest = -INFINITY, sum = 0;
    for (int i = 0; i < SQZ_CLASSES; i++)
        if (i != class_id) largest = fmax(largest, logits[i]);
    for (int i = 0; i < SQZ_CLASSES; i++)
        if (i != class_id) sum += exp(logits[i] - largest);
    return fmin(SQZ_CLASSES > 1 ? logits[class_id] - (largest + log(sum)) : INFINITY, 1e3);
}

/* Square roots of means, of length 1. */
static void direction_of(const float *fire9, double *direction)
{
    double length;
    for (size_t i = 0; i < FIRE9_CHANNELS; i++) direction[i] = sqrtf(fmaxf(fire9[i], 0));
    length = length_of(direction, FIRE9_CHANNELS);
    for (size_t i = 0; i < FIRE9_CHANNELS; i++) direction[i] /= length;
}

/* The cosine between a direction and the nearest prototype of a class. */
static double likeness(const double *direction, int class_id)
{
    double nearest = -INFINITY;
    for (size_t p = 0; p < PROTOTYPES; p++) {
        const unsigned char *each = prototypes + (class_id * PROTOTYPES + p) * FIRE9_CHANNELS;
        double dot = 0, square = 0;
        for (size_t i = 0; i < FIRE9_CHANNELS; i++) {
            dot += direction[i] * each[i];
            square += (double)each[i] * each[i];
        }
        nearest = fmax(nearest, dot / fmax(sqrt(square), 1e-12));
    }
    return nearest;
}

#if GROUPS
/* How likely the groups of the pretrained network's classes are. */
static void group_shares(const float *fire9, double *share)
{
    double largest = -INFINITY, sum = 0;
    for (size_t g = 0; g < GROUPS; g++) {
        share[g] = 0;
        for (size_t i = 0; i < FIRE9_CHANNELS; i++)
            share[g] += fire9[i] * ((double)groups[g * FIRE9_CHANNELS + i] * GROUP_SCALE);
        share[g] = 2 * share[g] + log(group_sizes[g]);
        largest = fmax(largest, share[g]);
    }
    for (size_t g = 0; g < GROUPS; g++) sum += share[g] = exp(share[g] - largest);
    for (size_t g = 0; g < GROUPS; g++) share[g] /= sum;
}

/* The cosine between the groups that are seen in an image and those that are usual for a class. */
static double kinship(const double *share, int class_id)
{
    double center[FIRE9_CHANNELS] = {0}, seen[FIRE9_CHANNELS] = {0}, typical[FIRE9_CHANNELS] = {0};
    double dot = 0;
    for (size_t g = 0; g < GROUPS; g++)
        for (size_t i = 0; i < FIRE9_CHANNELS; i++)
            center[i] += (double)groups[g * FIRE9_CHANNELS + i] * GROUP_SCALE / GROUPS;
    for (size_t g = 0; g < GROUPS; g++) {
        double kin[FIRE9_CHANNELS], length;
        for (size_t i = 0; i < FIRE9_CHANNELS; i++)
            kin[i] = (double)groups[g * FIRE9_CHANNELS + i] * GROUP_SCALE - center[i];
        length = length_of(kin, FIRE9_CHANNELS);
        for (size_t i = 0; i < FIRE9_CHANNELS; i++) {
            seen[i] += share[g] * kin[i] / length;
            typical[i] += usual[class_id * GROUPS + g] * kin[i] / length;
        }
    }
    for (size_t i = 0; i < FIRE9_CHANNELS; i++) dot += seen[i] * typical[i];
    return dot / length_of(seen, FIRE9_CHANNELS) / length_of(typical, FIRE9_CHANNELS);
}
#endif

#if AXES
/* How much nearer a direction is to the mean of a class than to that of all images. */
static double closeness(const double *direction, int class_id)
{
    double difference = 0;
    for (size_t a = 0; a < AXES; a++) {
        double along = 0, from_all, from_class;
        for (size_t i = 0; i < FIRE9_CHANNELS; i++)
            along += direction[i] * axes[a * FIRE9_CHANNELS + i];
        from_all = along - middle[a];
        from_class = along - places[class_id * AXES + a];
        difference += from_all * from_all * narrowing[a] - from_class * from_class;
    }
    return difference;
}
#endif

#if KNOWN
/* How likely the groups are that training images show. */
static double overlap(const double *share)
{
    double sum = 0;
    for (size_t g = 0; g < GROUPS; g++) sum += share[g] * known[g];
    return log(sum + 1e-4);
}
#endif

double sqz_familiarity(const sqz_net *net)
{
    int best = 0;
    double direction[FIRE9_CHANNELS], terms[TERMS], sum = 0, *term = terms;
#if GROUPS
    double share[GROUPS];
#endif
    for (int i = 1; i < SQZ_CLASSES; i++)
        if (net->logits[i] > net->logits[best]) best = i;
    direction_of(net->fire9, direction);
    *term++ = log_odds(net->logits, best);
    *term++ = likeness(direction, best);
#if GROUPS
    group_shares(net->fire9, share);
    *term++ = kinship(share, best);
#endif
#if AXES
    *term++ = closeness(direction, best);
#endif
#if KNOWN
    *term++ = overlap(share);
#endif
    for (int t = 0; t < TERMS; t++)
        sum += (terms[t] - center[best * TERMS + t]) / spread[best * TERMS + t];
    return sum / TERMS;
}

int sqz_is_none(const sqz_net *net) { return sqz_familiarity(net) < SQZ_THRESHOLD; }


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

/* The cosine between the square roots of means and the nearest prototype of a class. */
static double likeness(const float *fire9, int class_id)
{
    double root[FIRE9_CHANNELS], nearest = -INFINITY;
    for (size_t i = 0; i < FIRE9_CHANNELS; i++) root[i] = sqrtf(fmaxf(fire9[i], 0));
    for (size_t p = 0; p < PROTOTYPES; p++) {
        const unsigned char *each = prototypes + (class_id * PROTOTYPES + p) * FIRE9_CHANNELS;
        double dot = 0, square = 0;
        for (size_t i = 0; i < FIRE9_CHANNELS; i++) {
            dot += root[i] * each[i];
            square += (double)each[i] * each[i];
        }
        nearest = fmax(nearest, dot / fmax(sqrt(square), 1e-12));
    }
    return nearest / length_of(root, FIRE9_CHANNELS);
}

#if GROUPS
/* The cosine between the groups of the pretrained network's classes that are seen in an image, and
 * those that are usual for a class. */
static double kinship(const float *fire9, int class_id)
{
    double center[FIRE9_CHANNELS] = {0}, seen[FIRE9_CHANNELS] = {0}, typical[FIRE9_CHANNELS] = {0};
    double share[GROUPS], largest = -INFINITY, sum = 0, dot = 0;
    for (size_t g = 0; g < GROUPS; g++) {
        share[g] = 0;
        for (size_t i = 0; i < FIRE9_CHANNELS; i++) {
            const double weight = (double)groups[g * FIRE9_CHANNELS + i] * GROUP_SCALE;
            share[g] += fire9[i] * weight;
            center[i] += weight / GROUPS;
        }
        share[g] = 2 * share[g] + log(group_sizes[g]);
        largest = fmax(largest, share[g]);
    }
    for (size_t g = 0; g < GROUPS; g++) sum += share[g] = exp(share[g] - largest);
    for (size_t g = 0; g < GROUPS; g++) {
        double kin[FIRE9_CHANNELS], length;
        for (size_t i = 0; i < FIRE9_CHANNELS; i++)
            kin[i] = (double)groups[g * FIRE9_CHANNELS + i] * GROUP_SCALE - center[i];
        length = length_of(kin, FIRE9_CHANNELS);
        for (size_t i = 0; i < FIRE9_CHANNELS; i++) {
            seen[i] += share[g] / sum * kin[i] / length;
            typical[i] += usual[class_id * GROUPS + g] * kin[i] / length;
        }
    }
    for (size_t i = 0; i < FIRE9_CHANNELS; i++) dot += seen[i] * typical[i];
    return dot / length_of(seen, FIRE9_CHANNELS) / length_of(typical, FIRE9_CHANNELS);
}
#endif

double sqz_familiarity(const sqz_net *net)
{
    int best = 0;
    double terms[TERMS], sum = 0;
    for (int i = 1; i < SQZ_CLASSES; i++)
        if (net->logits[i] > net->logits[best]) best = i;
    terms[0] = log_odds(net->logits, best);
    terms[1] = likeness(net->fire9, best);
#if GROUPS
    terms[2] = kinship(net->fire9, best);
#endif
    for (int t = 0; t < TERMS; t++)
        sum += (terms[t] - center[best * TERMS + t]) / spread[best * TERMS + t];
    return sum / TERMS;
}

int sqz_is_none(const sqz_net *net) { return sqz_familiarity(net) < SQZ_THRESHOLD; }
